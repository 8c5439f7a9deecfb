"""Language models: text in, an ARPA file out, tuned on dev and tested beside greedy decoding. The search itself is in
`decoding`. It trains no acoustic model: nothing of `hausa_asr.training` or above may be imported here."""
