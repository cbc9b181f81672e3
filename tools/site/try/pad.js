// A canvas to draw a digit on, with a mouse, a finger, a pen or the keyboard, as that of `mnist-app`; it can undo.
const steps = {ArrowLeft: [-8, 0], ArrowRight: [8, 0], ArrowUp: [0, -8], ArrowDown: [0, 8]}

export class Pad {
    constructor(canvas, pen, changed) {  // `changed` gets the picture after each move, or null if it is empty
        Object.assign(this, {canvas, pen, changed, size: canvas.width, strokes: [], down: false})
        this.ink = canvas.getContext('2d', {willReadFrequently: true})
        this.ink.lineWidth = 18
        this.ink.lineCap = this.ink.lineJoin = 'round'
        this.ink.fillStyle = '#fff'
        canvas.onpointerdown = event => {
            if (!event.isPrimary || event.button) return
            canvas.setPointerCapture(event.pointerId)
            this.down = true
            this.strokes.push([])
            this.draw(this.place(event))
        }
        canvas.onpointermove = event => { if (event.isPrimary && this.down) this.draw(this.place(event)) }
        canvas.onpointerup = canvas.onpointercancel = () => this.down = false
        canvas.onkeydown = event => this.key(event)
        this.clear()
    }

    get picture() { return this.strokes.length ? this.ink.getImageData(0, 0, this.size, this.size) : null }

    place(event) {
        const box = this.canvas.getBoundingClientRect(), scale = this.size/box.width
        return [(event.clientX - box.left)*scale, (event.clientY - box.top)*scale]
    }

    move(to) {
        this.at = to.map(o => Math.min(this.size, Math.max(0, o)))
        const [x, y] = this.at.map(o => `calc(${o/this.size}*100cqw - 50%)`)
        this.pen.style.translate = `${x} ${y}`
    }

    draw(to) {
        this.move(to)
        this.strokes.at(-1).push(this.at)
        this.redraw()
    }

    redraw() {
        this.ink.fillRect(0, 0, this.size, this.size)
        for (const stroke of this.strokes) {
            this.ink.beginPath()
            for (const at of [stroke[0], ...stroke]) this.ink.lineTo(...at)
            this.ink.stroke()
        }
        this.changed(this.picture)
    }

    key(event) {
        const step = steps[event.key]
        if (step) {
            const from = this.at, to = [from[0] + step[0], from[1] + step[1]]
            if (event.shiftKey) { this.move(to); this.lifted = true }
            else {
                if (this.lifted ?? true) this.strokes.push([from])
                this.lifted = false
                this.draw(to)
            }
        }
        else if (event.key == 'Delete' || event.key == 'Backspace') this.clear()
        else if (event.key == 'z' && (event.ctrlKey || event.metaKey)) this.undo()
        else return
        event.preventDefault()
    }

    undo() { this.strokes.pop(); this.lifted = true; this.redraw() }

    clear() { this.strokes = []; this.lifted = true; this.move([this.size/2, this.size/4]); this.redraw() }
}
