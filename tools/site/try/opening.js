// mnist_fastai.pictures.opening: a picture upright, of bounded size, in the one shade of it that has most contrast.
import {clip, gaussianFilter, largestEigenvector, map, Plane, range, round, sum} from './arrays.js'
import {reduce, resize} from './resize.js'

// A picture is {width, height, data}: RGBA, 8 bits, as a canvas has it; `jpeg` if it comes out of a JPEG file.
export async function openPicture(file) {  // open_image: from a `Blob`
    let image
    try { image = await createImageBitmap(file, {colorSpaceConversion: 'none'}) }  // upright, as EXIF says
    catch { throw new Error('This is not a picture that your browser can show.') }
    const ink = new OffscreenCanvas(image.width, image.height).getContext('2d', {willReadFrequently: true})
    ink.drawImage(image, 0, 0)
    const {width, height, data} = ink.getImageData(0, 0, image.width, image.height)
    return {width, height, data, jpeg: file.type == 'image/jpeg'}
}

function channels({width, height, data}) {  // Image.split
    const empty = new Plane(height, width, new Uint8Array(width*height))
    return range(4).map(c => map(empty, (_, i) => data[4*i + c]))
}

function multiplied(a, b) { const t = a*b + 128; return ((t >> 8) + t) >> 8 }  // Pillow's MULDIV255

function premultiplied(planes) {  // From RGBA to RGBa
    const alpha = planes[3].data
    return [...planes.slice(0, 3).map(o => map(o, (c, i) => multiplied(c, alpha[i]))), planes[3]]
}

function unpremultiplied(planes) {  // From RGBa to RGBA
    const alpha = planes[3].data, divided = (c, a) => a == 0 || a == 255 ? c : Math.min(255, Math.trunc(255*c/a))
    return [...planes.slice(0, 3).map(o => map(o, (c, i) => divided(c, alpha[i]))), planes[3]]
}

function onGround(planes) {  // The end of `reduced`: what is transparent becomes white, or black if the rest is light
    const [red, green, blue, alpha] = planes.map(o => o.data)
    let light = 0
    alpha.forEach((a, i) => light += a*((red[i]*19595 + green[i]*38470 + blue[i]*7471 + 0x8000) >> 16))
    const ground = light < 127.5*sum(alpha) ? 255 : 0
    const over = (c, a) => { const t = c*a*128 + ground*(255 - a)*128 + (128 << 7); return (((t >> 8) + t) >> 8) >> 7 }
    return planes.slice(0, 3).map(o => map(o, (c, i) => over(c, alpha[i])))
}

export function reduced(picture, side) {  // Red, green and blue: three planes of 8 bits
    let planes = channels(picture)
    const transparent = planes[3].data.some(o => o < 255), by = planes => Math.floor(planes[0].longer/side)
    if (!transparent) planes.pop()
    const draft = picture.jpeg && [8, 4, 2].find(o => Math.min(picture.width, picture.height) >= o*side)
    if (draft) planes = planes.map(o => reduce(o, draft))  // Pillow lets the decoder do it, almost so
    if (by(planes) > 1) {
        const n = by(planes)
        planes = transparent ? unpremultiplied(premultiplied(planes).map(o => reduce(o, n)))
                             : planes.map(o => reduce(o, n))
    }
    return transparent ? onGround(planes) : planes
}

export function mostContrast(colours) {  // The mixture of red, green and blue in which detail varies most
    const [{height, width}] = colours, by = Math.max(1, Math.floor(Math.max(height, width, 3)/100))
    const high = Math.ceil(height/by), wide = Math.ceil(width/by)
    const detail = colours.map(({data}) => {
        const small = new Plane(high, wide)
        small.data.forEach((_, i) => small.data[i] = data[Math.floor(i/wide)*by*width + i % wide*by])
        const smooth = gaussianFilter(small, .06*Math.max(high, wide, 3))
        const rest = Array.from(small.data, (o, i) => Math.fround(o - smooth.data[i])), mean = sum(rest)/rest.length
        return rest.map(o => o - mean)
    })
    const covariance = detail.map(a => detail.map(b => sum(a.map((o, i) => o*b[i]))/(a.length - 1) + 1e-9))
    let mix = largestEigenvector(covariance)
    const whole = sum(mix.map(Math.abs))*(sum(mix) < 0 ? -1 : 1)
    mix = mix.map(o => Math.fround(o/whole))
    const lowest = sum(mix.map(o => Math.min(o, 0))), [red, green, blue] = colours.map(o => o.data)
    return map(colours[0], (_, i) => clip(red[i]*mix[0] + green[i]*mix[1] + blue[i]*mix[2] - lowest, 0, 1))
}

function asFloat(plane) { return map(plane, o => o/255, Float32Array) }

export function upright(picture, side) {  // [grey from 0 to 1, pixels of the picture for one of these]
    const planes = reduced(picture, side), [red, green, blue] = planes.map(o => o.data)
    const isGrey = red.every((o, i) => o == green[i] && o == blue[i])
    const grey = isGrey ? asFloat(planes[0]) : mostContrast(planes.map(asFloat))
    return [grey, Math.max(picture.width, picture.height)/grey.longer]
}

export function resized(plane, shape) { return resize(plane, shape, 'bilinear') }

export function toUint8(grey) {  // Brightness with 8 bits per pixel
    return map(grey, o => round(Math.fround(255*o)), Uint8Array)
}
