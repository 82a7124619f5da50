"""The frozen models that streams are learnt on."""
