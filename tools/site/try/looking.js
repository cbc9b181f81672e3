// mnist_fastai.pictures.looking: ask the finder network where the ink of a digit is, and cut the digit out.
import {argmax, clip, cut, disk, filtered, label, largest, map, Plane, round, sum} from './arrays.js'
import {asMnist, cropped} from './mnist_form.js'
import {resized, toUint8} from './opening.js'
import {resize} from './resize.js'

const step = 16, mostSeen = 1_500_000

async function look(finder, grey, side) {  // {ink, scale: pixels of `grey` for one of ink, x and y}
    const by = Math.min(side/grey.longer, Math.sqrt(mostSeen/grey.data.length))
    const shape = grey.shape.map(n => Math.max(2*step, step*round(n*by/step)))
    const image = resize(grey, shape, 'bicubic')
    const mean = sum(image.data)/image.data.length  // the finder subtracts it too, but with other roundings than Python's
    const ink = await finder(map(image, o => (o - mean)/255, Float32Array).data, shape)
    return {ink: new Plane(...shape, ink), scale: [grey.width/shape[1], grey.height/shape[0]]}
}

function partBox({x, y}) {  // left, top, right, bottom, in pixels of what the network sees
    const least = o => -largest(o.map(i => -i))
    return [2*least(x), 2*least(y), 2*(largest(x) + 1), 2*(largest(y) + 1)]
}

function halved({height, width, data}) {  // The mean of 2 x 2 pixels
    const half = new Plane(height/2, width/2)
    half.data.forEach((_, i) => {
        const x = i % half.width, at = 2*(i - x)/half.width*width + 2*x
        half.data[i] = (data[at] + data[at + 1] + data[at + width] + data[at + width + 1])/4
    })
    return half
}

function onePart(ink, near = .35) {  // [the largest digit, with what stands apart; each large piece of that by itself]
    const half = halved(ink), most = largest(half.data), least = Math.min(Math.fround(.3), Math.fround(.5*most))
    const groups = label(map(half, o => o > least ? 1 : 0))
    if (!groups.length || most < Math.fround(.1)) return
    const part = pixels => ({x: pixels.map(i => i % half.width), y: pixels.map(i => Math.floor(i/half.width))})
    const pieces = groups.map(pixels => ({pixels, box: partBox(part(pixels)).map(o => o/2),
                                          mass: sum(pixels.map(i => half.data[i]))}))
    let [first, ...left] = pieces.sort((a, b) => b.mass - a.mass)
    const mine = [first]
    for (let around = first.box; ;) {
        const size = Math.max(around[2] - around[0], around[3] - around[1])
        const away = ({box}) => Math.max(around[0] - box[2], around[1] - box[3], box[0] - around[2], box[1] - around[3])
        const join = left.filter(o => away(o) < near*size)
        if (!join.length) break
        left = left.filter(o => !join.includes(o))
        mine.push(...join)
        around = [0, 1, 2, 3].map(i => (i < 2 ? Math.min : Math.max)(...mine.map(o => o.box[i])))
    }
    const all = sum(mine.map(o => o.mass))
    return [part(mine.flatMap(o => o.pixels)),
            mine.filter(o => o.mass/all > .15 && o.mass/all < 1).map(o => part(o.pixels))]
}

const square = disk(1.5)  // 3 x 3

function cutOut(ink, part, scale) {  // In MNIST's form
    const [left, top, right, bottom] = partBox(part)
    let mine = new Plane((bottom - top)/2 + 2, (right - left)/2 + 2)
    part.x.forEach((x, i) => mine.data[(part.y[i] - top/2 + 1)*mine.width + x - left/2 + 1] = 1)
    mine = filtered(mine, square, Math.max)
    let there = cut(ink, left - 2, top - 2, right + 2, bottom + 2)
    there = map(there, (o, i) => {
        const x = i % there.width, y = (i - x)/there.width
        return o*mine.data[(y >> 1)*mine.width + (x >> 1)]
    })
    const [x, y] = scale.map(o => o/Math.min(...scale))
    if (Math.max(x, y) > 1.01) there = resized(there, [round(there.height*y), round(there.width*x)])
    const most = largest(there.data)
    return asMnist(cropped(map(there, o => clip(Math.fround(o/most), 0, 1)), .3))
}

const firstSide = 128, ideal = 44, clearly = 3, narrower = [.7, .5, .35]

export async function lookForOne(finder, grey, familiarity) {  // {box in `grey`, image}; undefined if there is no digit
    let pixels = toUint8(grey), corner = [0, 0], seen, found
    for (const nearer of [true, false]) {
        seen = await look(finder, pixels, firstSide)
        found = onePart(seen.ink)
        if (!found) return
        const around = partBox(found[0]), [x, y] = seen.scale
        const size = Math.max(around[2] - around[0], around[3] - around[1])
        if (!nearer || size > ideal || Math.max(x, y) < 1.2) break
        const [left, top] = [(around[0] - size)*x, (around[1] - size)*y].map(o => Math.max(round(o), 0))
        const right = Math.min(round((around[2] + size)*x), pixels.width)
        const bottom = Math.min(round((around[3] + size)*y), pixels.height)
        pixels = cut(pixels, left, top, right, bottom)
        corner = [left, top]
    }
    const [whole, pieces] = found, {ink, scale} = seen, [left, top, right, bottom] = partBox(whole)
    const wide = (right - left)*scale[0], high = (bottom - top)*scale[1]
    const ways = [[whole, 1], ...pieces.map(o => [o, 1]), ...(wide > .8*high ? narrower.map(o => [whole, o]) : [])]
    const images = ways.map(([part, width]) => cutOut(ink, part, [scale[0]*width, scale[1]]))
    const fits = images.length > 1 ? await familiarity(images) : [0]
    const best = Math.max(...fits) > fits[0] + clearly ? argmax(fits) : 0
    const box = partBox(ways[best][0]).map((o, i) => o*scale[i % 2] + corner[i % 2])
    return {box, image: images[best]}
}
