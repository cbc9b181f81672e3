// The page "Try it": what is drawn or dropped goes to the worker, and its answer is shown.
import {Pad} from './pad.js'

const find = name => document.querySelector(`.try ${name}`)
const worker = new Worker(new URL('worker.js', import.meta.url), {type: 'module'})
const files = {}  // what was loaded: address to bytes
const box = Object.assign(document.createElement('div'), {className: 'box'})  // around the digit of a photo
let file, asked  // the photo, if there is one; that of the answer to come
let busy = true, waiting  // the last picture that came while the worker was busy

const pad = new Pad(find('canvas.ink'), find('.pad i'), ask)

function model() { return find('input[name=model]:checked').value }

function ask(picture) {  // Read a picture, or if the worker is busy, as soon as it is not
    find('.undo').disabled = find('.clear').disabled = !picture
    if (!picture) showNothing()
    waiting = picture && {picture, model: model()}
    if (!busy && waiting) send()
}

function send() { busy = true; asked = file; worker.postMessage(waiting); waiting = undefined }

worker.onmessage = ({data}) => {
    busy = false
    if (data.files) showLoaded(data.files)
    const wanted = asked == file && (file || pad.strokes.length)
    if (data.answer && wanted) showAnswer(data)
    if (data.problem && (wanted || data.loading)) showProblem(data.problem)
    if (waiting) send()
}
worker.onerror = () => showProblem('This page needs a browser that runs WebAssembly and modules in workers.')

function showNothing() { find('.answer').className = 'answer none'; find('.number').textContent = 'The answer appears here.' }

function showProblem(problem) { showNothing(); find('.number').textContent = problem }

function showAnswer({answer, size}) {
    find('.answer').className = answer.digit == null ? 'answer unsure' : 'answer'
    find('.number').textContent = answer.digit ?? `not sure, perhaps ${answer.perhaps}`
    const seen = find('canvas.seen').getContext('2d')
    seen.putImageData(new ImageData(Uint8ClampedArray.from({length: 4*784}, (_, i) =>
        i % 4 == 3 ? 255 : 255 - answer.image.data[i >> 2]), 28), 0, 0)
    document.querySelectorAll('.try .bars tr').forEach((row, digit) => {
        const percent = `${(100*answer.probs[digit]).toFixed(1)}%`
        row.querySelector('i').style.width = percent
        row.lastElementChild.textContent = percent
    })
    if (file) {
        const [left, top, right, bottom] = answer.box.map((o, i) => `${100*o/size[i % 2]}%`)
        Object.assign(box.style, {left, top, width: `calc(${right} - ${left})`, height: `calc(${bottom} - ${top})`})
        box.hidden = false
    }
}

function showPhoto(chosen) {  // In place of the canvas; without one, the canvas comes back
    file = chosen
    find('.pad').hidden = !!file
    find('.photo').hidden = !file
    if (file) {
        const image = Object.assign(new Image(), {src: URL.createObjectURL(file), alt: 'Your photo'})
        image.onload = image.onerror = () => URL.revokeObjectURL(image.src)
        find('.photo').replaceChildren(image, box)
        box.hidden = true
    }
    ask(file ?? pad.picture)
}

function showLoaded(ofWorker) {
    const ofPage = performance.getEntriesByType('resource').map(o => [o.name, o.decodedBodySize])
    const here = new URL('.', import.meta.url).href
    for (const [url, bytes] of [...ofPage, ...ofWorker]) if (url.startsWith(here)) files[url] = bytes
    const total = Object.values(files).reduce((a, b) => a + b, 0)
    find('.loaded').textContent = `Loaded: ${(total/1e6).toFixed(1)} MB in ${Object.keys(files).length} files, ` +
        'of which ONNX Runtime is the most. Nothing that you draw or drop leaves your browser.'
}

function undo() { file ? showPhoto() : pad.undo() }
function clear() { showPhoto(); pad.clear() }

find('.undo').onclick = undo
find('.clear').onclick = clear
find('input[type=file]').onchange = event => { if (event.target.files[0]) showPhoto(event.target.files[0]); event.target.value = '' }
find('.models').onchange = () => ask(file ?? pad.picture)
document.ondragover = event => event.preventDefault()
document.ondrop = event => { event.preventDefault(); if (event.dataTransfer.files[0]) showPhoto(event.dataTransfer.files[0]) }
document.onpaste = event => { if (event.clipboardData.files[0]) showPhoto(event.clipboardData.files[0]) }
worker.postMessage({model: model()})  // opens the networks meanwhile
