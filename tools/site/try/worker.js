// Reads pictures beside the page, which can be drawn on meanwhile.
import {openPredictor} from './networks.js'
import {openPicture} from './opening.js'

onmessage = async ({data: {model, picture}}) => {  // A file, or what a canvas has; without one, the networks are opened
    try {
        const predictor = await openPredictor(model)
        const files = performance.getEntriesByType('resource').map(o => [o.name, o.decodedBodySize])
        if (!picture) return postMessage({files})
        if (picture instanceof Blob) picture = await openPicture(picture)
        postMessage({files, answer: await predictor.predict(picture), size: [picture.width, picture.height]})
    } catch (error) { postMessage({problem: error.message, loading: !picture}) }
}
