// The networks, opened with ONNX Runtime: its WebAssembly and the networks of the package lie beside this file.
import * as ort from './ort.wasm.bundle.min.mjs'
import {Predictor} from './inference.js'

const here = name => new URL(name, import.meta.url).href
const opened = {}  // sessions and numbers, by name: each is loaded once

ort.env.wasm.wasmPaths = {wasm: here('ort-wasm-simd-threaded.wasm')}
ort.env.wasm.numThreads = 1  // more need headers that a plain web server does not send

function session(name) { return opened[name] ??= ort.InferenceSession.create(here(`${name}.onnx`), {logSeverityLevel: 4}) }

async function numbersOf(name) { return (await (opened.numbers ??= fetch(here('numbers.json')).then(o => o.json())))[name] }

async function finder(pixels, [height, width]) {  // looking.finder_session: the probability that a pixel is ink
    const network = await session('finder')
    const {ink} = await network.run({picture: new ort.Tensor('float32', pixels, [1, 1, height, width])}, ['ink'])
    return ink.data
}

export async function openPredictor(name) {  // `tiny` or `best`
    const [network, numbers] = await Promise.all([session(name), numbersOf(name), session('finder')])
    async function scores(pixels, n) {
        const images = new ort.Tensor('float32', pixels, [n, 1, 28, 28])
        return (await network.run({images})).scores.data
    }
    return new Predictor(finder, scores, numbers)
}
