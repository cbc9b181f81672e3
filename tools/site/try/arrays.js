// What NumPy and scipy.ndimage do for the Python modules, on pictures of one channel.

export class Plane {  // An array of height x width: `data` is a Float32Array or a Uint8Array, row by row
    constructor(height, width, data = new Float32Array(height*width)) { Object.assign(this, {height, width, data}) }
    get longer() { return Math.max(this.height, this.width) }
    get shape() { return [this.height, this.width] }
}

export function range(n) { return Array.from({length: n}, (_, i) => i) }
export function sum(numbers) { return numbers.reduce((a, b) => a + b, 0) }
export function clip(x, low, high) { return Math.min(Math.max(x, low), high) }
export function argmax(numbers) { return numbers.indexOf(largest(numbers)) }

export function largest(numbers) {  // Without the limit that `Math.max(...numbers)` has
    let most = -Infinity
    for (const o of numbers) if (o > most) most = o
    return most
}

export function round(x) {  // Python's round, np.round: halves to the even neighbour
    const low = Math.floor(x), rest = x - low
    return rest < .5 || rest == .5 && low % 2 == 0 ? low : low + 1
}

export function map(plane, change, kind = plane.data.constructor) {  // `kind`: of array
    const {height, width, data} = plane, to = new kind(data.length)
    for (let i = 0; i < to.length; i++) to[i] = change(data[i], i)
    return new Plane(height, width, to)
}

export function transposed({height, width, data}) {
    const to = new Plane(width, height, new data.constructor(data.length))
    for (let y = 0; y < height; y++) for (let x = 0; x < width; x++) to.data[x*height + y] = data[y*width + x]
    return to
}

export function cut(plane, left, top, right, bottom) {  // plane[top:bottom, left:right]; what lies outside is 0
    const to = new Plane(bottom - top, right - left, new plane.data.constructor((bottom - top)*(right - left)))
    for (let y = Math.max(top, 0); y < Math.min(bottom, plane.height); y++)
        for (let x = Math.max(left, 0); x < Math.min(right, plane.width); x++)
            to.data[(y - top)*to.width + x - left] = plane.data[y*plane.width + x]
    return to
}

export function pad(plane, n) { return cut(plane, -n, -n, plane.width + n, plane.height + n) }

export function label({height, width, data}) {  // ndimage.label with np.ones((3, 3)), of what is not 0
    const labels = new Int32Array(data.length), groups = []  // groups: the indices of the pixels of label 1, 2, ...
    for (let start = 0; start < data.length; start++) {
        if (!data[start] || labels[start]) continue
        const group = [start]
        labels[start] = groups.push(group)
        for (const i of group) {  // grows while it is walked through
            const x = i % width, y = (i - x)/width
            for (let v = Math.max(y - 1, 0); v <= Math.min(y + 1, height - 1); v++)
                for (let u = Math.max(x - 1, 0); u <= Math.min(x + 1, width - 1); u++) {
                    const o = v*width + u
                    if (data[o] && !labels[o]) { labels[o] = groups.length; group.push(o) }
                }
        }
    }
    return groups.map(o => o.sort((a, b) => a - b))
}

export function filtered(plane, footprint, choose) {  // grey_dilation by Math.max, grey_erosion by Math.min; 0 outside
    const {height, width, data} = plane, to = new Plane(height, width, new data.constructor(data.length))
    for (let y = 0; y < height; y++)
        for (let x = 0; x < width; x++) {
            let found = data[y*width + x]
            for (const [dy, dx] of footprint) {
                const v = y + dy, u = x + dx
                found = choose(found, v >= 0 && v < height && u >= 0 && u < width ? data[v*width + u] : 0)
            }
            to.data[y*width + x] = found
        }
    return to
}

export function disk(radius) {  // [dy, dx] of the pixels within a radius
    const n = Math.ceil(radius), side = range(2*n + 1).map(o => o - n)
    return side.flatMap(y => side.map(x => [y, x])).filter(o => Math.hypot(...o) <= radius)
}

function smoothedRows({height, width, data}, sigma) {
    const reach = Math.trunc(4*sigma + .5), to = new Plane(height, width)
    const bell = range(reach + 1).map(o => Math.exp(-.5*o*o/(sigma*sigma))), whole = 2*sum(bell) - 1
    const weights = bell.map(o => o/whole)
    const mirrored = i => (i = ((i % (2*width)) + 2*width) % (2*width)) < width ? i : 2*width - 1 - i
    const index = Int32Array.from(range(width + 2*reach), i => mirrored(i - reach))
    for (let y = 0; y < height; y++)
        for (let x = 0; x < width; x++) {
            const row = y*width, middle = x + reach
            let total = data[row + x]*weights[0]
            for (let o = reach; o > 0; o--)
                total += (data[row + index[middle - o]] + data[row + index[middle + o]])*weights[o]
            to.data[row + x] = total
        }
    return to
}

export function gaussianFilter(plane, sigma) {  // ndimage.gaussian_filter of float32
    return smoothedRows(transposed(smoothedRows(transposed(plane), sigma)), sigma)
}

export function largestEigenvector(matrix) {  // Of a symmetric matrix, by Jacobi's rotations; np.linalg.eigh's last
    const n = matrix.length, a = matrix.map(o => [...o])
    const vectors = range(n).map(i => range(n).map(j => +(i == j)))
    for (let sweep = 0; sweep < 50; sweep++)
        for (let p = 0; p < n; p++)
            for (let q = p + 1; q < n; q++) {
                if (!a[p][q]) continue
                const angle = .5*Math.atan2(2*a[p][q], a[q][q] - a[p][p])
                const cos = Math.cos(angle), sin = Math.sin(angle)
                const turn = (m, i, j, k, l) => {
                    [m[i][j], m[k][l]] = [cos*m[i][j] - sin*m[k][l], sin*m[i][j] + cos*m[k][l]]
                }
                for (let k = 0; k < n; k++) turn(a, k, p, k, q)
                for (let k = 0; k < n; k++) turn(a, p, k, q, k)
                for (let k = 0; k < n; k++) turn(vectors, k, p, k, q)
            }
    const last = argmax(a.map((row, i) => row[i]))
    return vectors.map(row => row[last])
}
