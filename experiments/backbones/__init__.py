"""The frozen models that streams are learnt on.

`backbone` is what every run has of one; `pretrained` loads or trains them, `decoder` is for language models, and
`bert_below_ffn_down` computes a BERT up to its first adapted layer.
"""
