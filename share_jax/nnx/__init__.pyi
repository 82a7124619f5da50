from .adapted_model import adapt as adapt
