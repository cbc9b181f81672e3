// A canvas to draw a digit on, with a mouse, a finger, a pen or the keyboard. It sends the drawing at every move.
// Gradio runs this as the body of a function: `element` is the component, `props.value` and `trigger` send from it.
const canvas = element.querySelector('canvas'), pen = element.querySelector('i')
const [undoButton, clearButton] = element.querySelectorAll('button')
const ink = canvas.getContext('2d', {willReadFrequently: true}), size = canvas.width
const steps = {ArrowLeft: [-8, 0], ArrowRight: [8, 0], ArrowUp: [0, -8], ArrowDown: [0, 8]}
const before = []  // image, place of the pen and what was sent, for each of the last strokes
let at, down = false

function send(value) { props.value = value; trigger('input') }

function move(to, draw) {
    to = to.map(coord => Math.min(size, Math.max(0, coord)))
    if (draw) { ink.beginPath(); ink.moveTo(...at); ink.lineTo(...to); ink.stroke(); send(canvas.toDataURL()) }
    at = to
    pen.style.translate = `calc(${at[0]/size}*100cqw - 50%) calc(${at[1]/size}*100cqw - 50%)`
}

function remember() {
    before.push([ink.getImageData(0, 0, size, size), at, props.value])
    if (before.length > 100) before.shift()
    undoButton.disabled = false
}

function undo() {
    if (down || !before.length) return
    const [image, from, drawing] = before.pop()
    undoButton.disabled = !before.length
    ink.putImageData(image, 0, 0)
    move(from)
    send(drawing)
}

function clear() {
    if (props.value) remember()
    ink.fillRect(0, 0, size, size)
    move([size/2, size/4])
    send('')
}

function place(event) {
    const box = canvas.getBoundingClientRect(), scale = size/box.width
    return [(event.clientX - box.left)*scale, (event.clientY - box.top)*scale]
}

canvas.onpointerdown = event => {
    if (!event.isPrimary || event.button) return
    canvas.setPointerCapture(event.pointerId)
    down = true
    remember()
    at = place(event)
    move(at, true)
}
canvas.ontouchstart = event => event.preventDefault()  // or a fast stroke is a fling, and the next tap only stops it
canvas.onpointermove = event => { if (event.isPrimary && down) move(place(event), true) }
canvas.onpointerup = canvas.onpointercancel = () => down = false
canvas.onkeydown = event => {
    const step = steps[event.key]
    if (step) {
        if (!event.shiftKey && !event.repeat) remember()
        move([at[0] + step[0], at[1] + step[1]], !event.shiftKey)
    } else if (event.key == 'Delete' || event.key == 'Backspace') clear()
    else return
    event.preventDefault()
}

// Ctrl-Z wherever the focus is, unless it is in a text, which has its own
document.addEventListener('keydown', event => {
    if (!(event.ctrlKey || event.metaKey) || event.altKey || event.shiftKey || event.key.toLowerCase() != 'z') return
    if (!canvas.checkVisibility() || event.target.matches(':read-write')) return
    undo()
    event.preventDefault()
})
undoButton.onclick = undo
clearButton.onclick = clear
undoButton.disabled = true

ink.lineWidth = 18
ink.lineCap = ink.lineJoin = 'round'
ink.fillStyle = '#fff'
clear()
