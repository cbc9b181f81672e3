// A canvas to draw a digit on, with a mouse, a finger, a pen or the keyboard. It sends the drawing at every move.
// Gradio runs this as the body of a function: `element` is the component, `props.value` and `trigger` send from it.
const canvas = element.querySelector('canvas'), pen = element.querySelector('i'), ink = canvas.getContext('2d')
const size = canvas.width
const steps = {ArrowLeft: [-8, 0], ArrowRight: [8, 0], ArrowUp: [0, -8], ArrowDown: [0, 8]}
let at, down = false

function send(value) { props.value = value; trigger('input') }

function move(to, draw) {
    to = to.map(coord => Math.min(size, Math.max(0, coord)))
    if (draw) { ink.beginPath(); ink.moveTo(...at); ink.lineTo(...to); ink.stroke(); send(canvas.toDataURL()) }
    at = to
    pen.style.translate = `calc(${at[0]/size}*100cqw - 50%) calc(${at[1]/size}*100cqw - 50%)`
}

function clear() { ink.fillRect(0, 0, size, size); move([size/2, size/4]); send('') }

function place(event) {
    const box = canvas.getBoundingClientRect(), scale = size/box.width
    return [(event.clientX - box.left)*scale, (event.clientY - box.top)*scale]
}

canvas.onpointerdown = event => {
    if (!event.isPrimary || event.button) return
    canvas.setPointerCapture(event.pointerId)
    down = true
    at = place(event)
    move(at, true)
}
canvas.onpointermove = event => { if (event.isPrimary && down) move(place(event), true) }
canvas.onpointerup = canvas.onpointercancel = () => down = false
canvas.onkeydown = event => {
    const step = steps[event.key]
    if (step) move([at[0] + step[0], at[1] + step[1]], !event.shiftKey)
    else if (event.key == 'Delete' || event.key == 'Backspace') clear()
    else return
    event.preventDefault()
}
element.querySelector('button').onclick = clear

ink.lineWidth = 18
ink.lineCap = ink.lineJoin = 'round'
ink.fillStyle = '#fff'
clear()
