"""The files of the chat page, as browsers get them: plain HTML, CSS and ES modules, nothing is built.

`app.js` puts the parts together. Pure (no DOM, no clock): `text`, `markdown`, `inline`, `emphasis`, `run`,
`layout`, `draft`, `tally`. What a model, a peer or a user wrote becomes DOM in `dom.js` and `render.js`
only, from text nodes and a fixed set of elements.
"""
