"""A model of one's own for jobs/own-class.yaml: a Llama whose layers are added through a gate.

What a class needs: a config_class, and a forward that takes input_ids, position_ids and labels.
What transformers has already is inherited. A neighbour file is imported with a dot
(`from .layers import Gate`), then it is saved with the model, too.
"""

import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaDecoderLayer


class GatedLlamaConfig(LlamaConfig):
    """The keys of a Llama, and how far the gates are open at the start."""

    model_type = "gated_llama"

    def __init__(self, gate_init: float = 0.1, **llama):
        self.gate_init = gate_init
        super().__init__(**llama)


class GatedLayer(LlamaDecoderLayer):
    """Gives x + tanh(gate) * (layer(x) - x), so a new model begins close to no layers at all."""

    def __init__(self, config: GatedLlamaConfig, layer_idx: int):
        super().__init__(config, layer_idx)
        self.gate = nn.Parameter(torch.full((config.hidden_size,), config.gate_init))

    def forward(self, hidden_states, *inputs, **named):
        found = super().forward(hidden_states, *inputs, **named)
        # transformers 4 gives a tuple of one
        inner = found[0] if isinstance(found, tuple) else found
        return hidden_states + torch.tanh(self.gate) * (inner - hidden_states)


class GatedLlamaForCausalLM(LlamaForCausalLM):
    """A Llama with such layers."""

    config_class = GatedLlamaConfig

    def __init__(self, config: GatedLlamaConfig):
        super().__init__(config)
        layers = [GatedLayer(config, i) for i in range(config.num_hidden_layers)]
        self.model.layers = nn.ModuleList(layers)
        self.post_init()
