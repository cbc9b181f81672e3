// A row of pictures to choose from: it sends the number of the one that is chosen.
// Gradio runs this as the body of a function: `element` is the component, `props.value` and `trigger` send from it.
element.onclick = event => {
    const chosen = event.target.closest('button')
    if (!chosen) return
    for (const button of element.querySelectorAll('button')) button.setAttribute('aria-pressed', button == chosen)
    props.value = chosen.value
    trigger('input')
}
