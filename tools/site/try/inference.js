// mnist_fastai.inference and mnist_fastai.reader: read the digit of a picture, with probabilities.
import {argmax, sum} from './arrays.js'
import {findDigit} from './finding.js'

const energyMargin = 1.5
export const rejectBelow = .7  // default_reject_below

function logSumExp(scores) {  // np.logaddexp.reduce
    const most = Math.max(...scores)
    return most + Math.log(sum(scores.map(o => Math.exp(o - most))))
}

function digitProbability(energy, limit) { return 1/(1 + Math.exp(Math.min(energy - limit - energyMargin, 50))) }

export class Predictor {
    constructor(finder, scores, numbers) {  // What `networks.js` opens; mean, std, temperature and energy_limit
        Object.assign(this, {finder, scores, numbers})
    }

    async calibrated(images) {  // Network.calibrated: ten scores for each image, divided by the temperature
        const {mean, std, temperature} = this.numbers, pixels = new Float32Array(784*images.length)
        images.forEach((image, n) => image.data.forEach((o, i) => {
            pixels[784*n + i] = Math.fround(Math.fround(o/255) - Math.fround(mean))/Math.fround(std)
        }))
        const scores = await this.scores(pixels, images.length)
        return images.map((_, n) => Array.from(scores.slice(10*n, 10*n + 10), o => o/Math.fround(temperature)))
    }

    async predict(picture) {  // {digit, perhaps, prob, probs, box, image}; an `Error` if there is no digit
        const familiarity = async images => (await this.calibrated(images)).map(logSumExp)
        const {box, image} = await findDigit(this.finder, picture, familiarity)
        const [scores] = await this.calibrated([image]), energy = -logSumExp(scores)
        const isDigit = digitProbability(energy, this.numbers.energy_limit)
        const probs = scores.map(o => Math.exp(o + energy)*isDigit), perhaps = argmax(probs), prob = probs[perhaps]
        return {digit: prob >= rejectBelow ? perhaps : null, perhaps, prob, probs, box, image}
    }
}
