"""Scripts that another Python runs, one with openvino-genai or vllm installed: they import nothing of regard.

`python SCRIPT FOLDER VARIANT` reads FOLDER/model, a transformers checkpoint, and FOLDER/load.json: `asks`, a list of
objects with `prompt`, `new_tokens` and `arrives` (seconds), `budget`, the most tokens of a step, `turns`, how often
the load is replayed, and `threads`. It writes FOLDER/VARIANT.json: `turns`, a list of objects with `seconds` of the
whole load, `times`, of each request the seconds after its arrival at which each token came, and `tokens`; and `about`,
versions and settings. Requests are greedy and ignore the end of text.
"""
