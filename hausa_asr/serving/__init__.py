"""Serving: a page in the browser that transcribes what is uploaded or spoken.

In: an exported model. Out: a web server on this machine. Imports neither MLflow nor training; gradio only here.
"""
