// mnist_fastai.pictures.mnist_form: a digit's ink in the form that the makers of MNIST gave their digits.
import {clip, cut, disk, filtered, map, pad, round, sum} from './arrays.js'
import {resized, toUint8} from './opening.js'

export function strokeWidth(ink) {  // Area over half the outline, as the sum of ink over half its total variation
    const {height, width, data} = pad(ink, 1)
    let outline = 0
    const slope = (at, i, n, step) => {  // np.gradient
        if (i == 0) return data[at + step] - data[at]
        if (i == n - 1) return data[at] - data[at - step]
        return (data[at + step] - data[at - step])/2
    }
    for (let y = 0; y < height; y++)
        for (let x = 0; x < width; x++)
            outline += Math.hypot(slope(y*width + x, y, height, width), slope(y*width + x, x, width, 1))
    return 2*sum(ink.data)/Math.max(outline, 1e-6)
}

export function cropped(ink, least) {  // Without the empty margin
    let left = Infinity, top = Infinity, right = 0, bottom = 0
    ink.data.forEach((o, i) => {
        if (!(o > Math.fround(least))) return
        const x = i % ink.width, y = (i - x)/ink.width
        left = Math.min(left, x), right = Math.max(right, x + 1), top = Math.min(top, y), bottom = Math.max(bottom, y + 1)
    })
    return right ? cut(ink, left, top, right, bottom) : ink
}

export function scaledTo(ink, side) {  // Proportions kept
    return map(resized(ink, ink.shape.map(n => Math.max(1, round(n*side/ink.longer)))), o => clip(o, 0, 1))
}

export function restroked(ink, by) {  // Thicker strokes, or thinner ones
    const radius = 2*Math.abs(by), n = Math.ceil(radius)
    const near = disk(radius + .3).filter(o => o.every(x => Math.abs(x) <= n))
    return scaledTo(cropped(filtered(pad(ink, n), near, by > 0 ? Math.max : Math.min), .2), 20)
}

function centreOfMass({width, data}) {  // ndimage.center_of_mass
    const whole = sum(data)
    return [i => Math.floor(i/width), i => i % width].map(at => sum(Array.from(data, (o, i) => o*at(i)))/whole)
}

export function asMnist(ink, thin = 2, thick = 4) {  // 20x20, centred by its mass, strokes neither thin nor thick
    const large = scaledTo(map(ink, o => o < Math.fround(.15) ? 0 : o), 80)
    let small = scaledTo(large, 20)
    const width = strokeWidth(small)
    if (!(thin <= width && width <= thick)) small = restroked(large, clip(width, thin, thick) - width)
    const [y, x] = centreOfMass(small).map((m, i) => clip(round(14 - (m + .5)), 0, 28 - small.shape[i]))
    return toUint8(cut(small, -x, -y, 28 - x, 28 - y))
}

export function inMnistForm(grey) {  // The image itself, or its negative, if that is in MNIST's form; else undefined
    if (grey.height != 28 || grey.width != 28) return
    let image = toUint8(grey)
    if (sum(image.data)/784 > 127) image = map(image, o => 255 - o)
    const rim = image.data.filter((o, i) => o && (i < 28 || i >= 756 || i % 28 == 0 || i % 28 == 27)).length
    const corners = [0, 27, 756, 783].filter(i => image.data[i]).length  // Python counts these twice
    if (rim + corners < 12 && image.data.some(o => o > 127)) return image
}
