// mnist_fastai.pictures.finding: find the digit of a picture, in MNIST's own form.
import {round} from './arrays.js'
import {lookForOne} from './looking.js'
import {inMnistForm} from './mnist_form.js'
import {upright} from './opening.js'

export async function findDigit(finder, picture, familiarity) {  // {box in pixels of the picture, image: 28 x 28}
    for (const side of [1000, 2800]) {
        const [grey, scale] = upright(picture, side), image = inMnistForm(grey)
        if (image) return {box: [0, 0, 28, 28], image}
        const found = await lookForOne(finder, grey, familiarity)
        if (found) return {box: found.box.map(o => round(o*scale)), image: found.image}
        if (scale == 1) break
    }
    throw new Error('There is no digit in this picture: expected one in ink that differs from its ground.')
}
