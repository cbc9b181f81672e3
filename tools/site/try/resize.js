// How Pillow makes pictures smaller and larger: the same sums, with the same roundings.
import {Plane, range, sum, transposed} from './arrays.js'

const filters = {  // Pillow's Resample.c
    bilinear: {support: 1, weight: x => Math.max(1 - Math.abs(x), 0)},
    bicubic: {support: 2, weight(x) {
        x = Math.abs(x)
        return x < 1 ? (1.5*x - 2.5)*x*x + 1 : x < 2 ? (((x - 5)*x + 8)*x - 4)*-.5 : 0
    }},
}

function precomputeCoeffs(from, to, {support, weight}) {  // For each of `to` pixels: where its weights begin, and they
    const scale = from/to, wide = Math.max(scale, 1), reach = support*wide
    return range(to).map(i => {
        const centre = (i + .5)*scale
        const start = Math.max(Math.trunc(centre - reach + .5), 0), end = Math.min(Math.trunc(centre + reach + .5), from)
        const weights = range(end - start).map(x => weight((x + start - centre + .5)*(1/wide)))
        const whole = sum(weights)
        return {start, weights: weights.map(o => o/whole)}
    })
}

const bits = 22  // of Pillow's fixed point numbers for pictures of 8 bits

function resizedRows(plane, width, filter) {
    if (plane.width == width) return plane
    const {height, data} = plane, whole = data instanceof Uint8Array
    const to = new Plane(height, width, whole ? new Uint8ClampedArray(height*width) : new Float32Array(height*width))
    precomputeCoeffs(plane.width, width, filter).forEach(({start, weights}, x) => {
        if (whole) weights = weights.map(o => Math.trunc(o*2**bits + (o < 0 ? -.5 : .5)))
        for (let y = 0; y < height; y++) {
            let total = whole ? 2**(bits - 1) : 0
            for (let i = 0, at = y*plane.width + start; i < weights.length; i++) total += data[at + i]*weights[i]
            to.data[y*width + x] = whole ? total >> bits : total
        }
    })
    if (whole) to.data = new Uint8Array(to.data.buffer)
    return to
}

export function resize(plane, [height, width], how) {  // Image.resize, modes L (Uint8Array) and F (Float32Array)
    const filter = filters[how]
    return transposed(resizedRows(transposed(resizedRows(plane, width, filter)), height, filter))
}

export function reduce(plane, by) {  // Image.reduce, of 8 bits
    const {width, height, data} = plane, wide = Math.ceil(width/by), high = Math.ceil(height/by)
    const to = new Plane(high, wide, new Uint8Array(wide*high))
    for (let y = 0; y < high; y++)
        for (let x = 0; x < wide; x++) {
            const right = Math.min((x + 1)*by, width), bottom = Math.min((y + 1)*by, height)
            const n = (right - x*by)*(bottom - y*by)
            let total = n >> 1
            for (let v = y*by; v < bottom; v++) for (let u = x*by; u < right; u++) total += data[v*width + u]
            to.data[y*wide + x] = Math.floor(total*Math.trunc(Math.fround(2**24/n))/2**24)  // as Reduce.c divides
        }
    return to
}
