"""Small models of all kinds, with data, and their quantisation by running whole models only."""

import copy
from functools import partial

import torch
from torch import nn

from rescomp import Statistics, quantize_matrix
from vq.formats.clip import part_of
from vq.layers import candidates, matrix_of, weight_of


def llama(**settings):
    """Decoder of transformers: grouped-query attention, untied head."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    sizes = {
        "vocab_size": 50, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 3,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 32,
        "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
    }  # fmt: skip
    return LlamaForCausalLM(LlamaConfig(**{**sizes, **settings})).eval()


def bert():
    """Encoder of transformers."""
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    return BertModel(
        BertConfig(
            vocab_size=50, hidden_size=24, intermediate_size=40, num_hidden_layers=2,
            num_attention_heads=4, max_position_embeddings=32,
        )
    ).eval()  # fmt: skip


def gpt2():
    """Decoder whose linears hold their weights transposed."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=50, n_embd=24, n_layer=2, n_head=4, n_positions=32,
            bos_token_id=1, eos_token_id=2,
        )
    ).eval()  # fmt: skip


class Residual(nn.Module):
    """Convolutional block that works in place."""

    def __init__(self, channels, groups):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding="same", groups=groups, dilation=2)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x):
        return self.act(self.conv(x).add_(x))


class Convolutions(nn.Module):
    """Stem, blocks with grouped and depthwise convolutions, one-dimensional end, head."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1, padding_mode="reflect")
        self.blocks = nn.Sequential(*[Residual(8, groups) for groups in (1, 2, 8)])
        self.last = nn.Conv1d(8, 12, 2, stride=2, padding=1)
        self.head = nn.Linear(12, 5)

    def forward(self, x):
        x = self.blocks(torch.relu(self.stem(x)))
        return self.head(torch.relu(self.last(x.flatten(2))).mean(-1))


class Turn(nn.Module):
    """Block that returns a tuple and takes a mask of its own."""

    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(12, 20), nn.Linear(20, 12)

    def forward(self, hidden_states, mask=None):
        return hidden_states + self.fc2(torch.relu(self.fc1(hidden_states * mask))), None


class Keywords(nn.Module):
    """Blocks called by keyword, every other one with another mask; layers before and behind."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(12, 12)
        self.blocks = nn.ModuleList(Turn() for _ in range(3))
        self.head = nn.Linear(12, 3)

    def forward(self, x):
        masks = [torch.ones_like(x), (x > 0).float()]
        x = self.embed(x)
        for i, block in enumerate(self.blocks):
            x = block(hidden_states=x, mask=masks[i % 2])[0]
        return self.head(x)


class Branches(nn.Module):
    """No chain of blocks at all; one layer runs twice."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = (nn.Linear(12, 12) for _ in range(3))
        self.head = nn.Linear(12, 3)

    def forward(self, x):
        x = torch.tanh(self.a(x)) + self.b(x)
        return self.head(torch.relu(self.c(torch.relu(self.c(x)))))


class Sum(nn.Module):
    """Two layers on one input, one of which runs again on another."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.head = nn.Linear(12, 12), nn.Linear(12, 12), nn.Linear(12, 3)

    def forward(self, x):
        return self.head(torch.relu(self.a(x) + self.b(torch.relu(self.b(x)))))


class Step(nn.Module):
    """Block of two layers, the first of which another block may hold, too."""

    def __init__(self, first):
        super().__init__()
        self.fc1, self.fc2 = first, nn.Linear(12, 12)

    def forward(self, x):
        return x + torch.tanh(self.fc2(torch.relu(self.fc1(x))))


class Shared(nn.Module):
    """Blocks of which the first and the last have one layer in common, or its weight."""

    def __init__(self, *, weight_only=False):
        super().__init__()
        first, second, third = (nn.Linear(12, 12) for _ in range(3))
        third.weight, third.bias = first.weight, first.bias
        last = third if weight_only else first
        self.blocks = nn.ModuleList([Step(first), Step(second), Step(last)])

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return x


class Skips(nn.Module):
    """Blocks that are also given what came out of the block before the last."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(Turn() for _ in range(4))

    def forward(self, x):
        seen = [torch.sigmoid(x)] * 2
        for block in self.blocks:
            x, _ = block(x, mask=seen[-2])
            seen.append(torch.sigmoid(x))
        return x


class NormedStep(nn.Module):
    """Block that begins with a batch norm and has another between its layers."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.BatchNorm1d(12), nn.BatchNorm1d(12)
        self.fc1, self.fc2 = nn.Linear(12, 12), nn.Linear(12, 12)

    def forward(self, x):
        return x + self.fc2(torch.relu(self.norm(self.fc1(self.first(x)))))


class Normed(nn.Module):
    """Batch norms before, in and behind the blocks, the second of which is kept."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Linear(12, 12), nn.BatchNorm1d(12)
        self.blocks = nn.Sequential(*[NormedStep() for _ in range(3)])
        self.tail, self.head = nn.BatchNorm1d(12), nn.Linear(12, 3)
        self.eval()

    def forward(self, x):
        return self.head(torch.relu(self.tail(self.blocks(torch.relu(self.norm(self.stem(x)))))))


def chain():
    """Modules in a row."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(12, 16), nn.ReLU(), nn.Sequential(nn.Linear(16, 16), nn.ReLU(inplace=True)),
        nn.LayerNorm(16), nn.Linear(16, 4),
    )  # fmt: skip


def stories():
    """stories260K as transformers has Llamas: rotary pairs are halves, not neighbours."""
    from signbook.zoo.llama import load_stories260k
    from tests.signbook.shared import shared

    state = load_stories260k(shared("stories260K/stories260K.bin")).state_dict()
    model = llama(
        vocab_size=512, hidden_size=64, intermediate_size=172, num_hidden_layers=5,
        num_attention_heads=8, num_key_value_heads=4, max_position_embeddings=512,
        rms_norm_eps=1e-5, tie_word_embeddings=True,
    )  # fmt: skip
    names = {
        "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
        "attn.wq": "self_attn.q_proj", "attn.wk": "self_attn.k_proj",
        "attn.wv": "self_attn.v_proj", "attn.wo": "self_attn.o_proj",
        "ffn.w1": "mlp.gate_proj", "ffn.w2": "mlp.down_proj", "ffn.w3": "mlp.up_proj",
    }  # fmt: skip
    embedding = state.pop("embed.weight")
    found = {"model.embed_tokens.weight": embedding, "lm_head.weight": embedding}
    found["model.norm.weight"] = state.pop("norm.weight")
    for name, weight in state.items():
        _, number, *part, _ = name.split(".")
        if part[-1] in ("wq", "wk"):
            weight = weight.reshape(-1, 4, 2, 64).transpose(1, 2).reshape(weight.shape)
        found[f"model.layers.{number}.{names['.'.join(part)]}.weight"] = weight
    model.load_state_dict(found)
    return model


def tokens(count=4, rows=3, length=10, seed=0):
    """Batches of random tokens."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(3, 50, (rows, length), generator=generator) for _ in range(count)]


def masked(count=4):
    """The same with an attention mask that leaves out the last tokens of some rows."""
    lengths = torch.tensor([10, 7, 4])
    mask = (torch.arange(10)[None] < lengths[:, None]).long()
    return [{"input_ids": batch, "attention_mask": mask} for batch in tokens(count)]


def vectors(count=4, rows=8, width=12):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(rows, width, generator=generator) for _ in range(count)]


def images(count=3):
    generator = torch.Generator().manual_seed(0)
    return [(torch.randn(4, 3, 10, 10, generator=generator), torch.zeros(4)) for _ in range(count)]


CASES = {
    "llama": (llama, tokens),
    "bert": (bert, masked),
    "gpt2": (gpt2, tokens),
    "convolutions": (Convolutions, images),
    "keywords": (Keywords, vectors),
    "branches": (Branches, vectors),
    "sum": (Sum, vectors),
    "shared": (Shared, vectors),
    "skips": (Skips, vectors),
    "chain": (chain, vectors),
    "normed": (Normed, partial(vectors, rows=32)),
}


def by_whole_models(model, batches, groups, recipe, method, settings):
    """Quantise ``groups`` of layers in turn; every input comes from running two whole models.

    Batch norms in groups of names are measured again when their turn comes. Slow, and shares no
    code with the walk. Returns integers by layer.
    """
    plain, quantised = copy.deepcopy(model), copy.deepcopy(model)
    layers = dict(candidates(quantised))
    chosen = recipe.resolve(layers)
    found = {}
    for group in groups:
        first = group[0]
        if isinstance(quantised.get_submodule(first), nn.BatchNorm1d):
            measure(quantised, [quantised.get_submodule(name) for name in group], batches)
            continue
        op = {"Conv1D": "linear_t", "Conv1d": "conv1d", "Conv2d": "conv2d"}.get(
            type(layers[first]).__name__, "linear"
        )
        sums = None
        for batch in batches:
            x, y = (inputs(m, first, batch) for m in (quantised, plain))
            if sums is None:
                sums = [Statistics.empty(p.shape[1], cross=True, dtype=settings.dtype) for p in x]
            for s, own, other in zip(sums, x, y, strict=True):
                s.add(own, other)
        for name in group:
            weight = layers[name].weight.detach()
            shape = tuple(weight.T.shape if op == "linear_t" else weight.shape)
            g = chosen[name].geometry(name, op, shape)
            matrix = matrix_of(weight, op, g.axis).float()
            rows = len(matrix) // len(sums)
            parts = [
                quantize_matrix(
                    matrix[i * rows : (i + 1) * rows], part_of(g, (rows, g.I), g.group), method, s,
                    settings,
                )
                for i, s in enumerate(sums)
            ]  # fmt: skip
            found[name] = torch.cat([part.integers for part in parts])
            decoded = torch.cat([part.weight for part in parts])
            layers[name].weight.data = weight_of(decoded, shape, op, g.axis).to(weight.dtype)
    return found


@torch.no_grad()
def measure(model, norms, batches):
    """Means of the batches' statistics, with ``norms`` alone in training."""
    model.eval()
    for norm in norms:
        norm.train()
        norm.reset_running_stats()
        norm.momentum = None
    for batch in batches:
        model(batch)
    for norm in norms:
        norm.eval()
        norm.momentum = 0.1


@torch.no_grad()
def inputs(model, name, batch):
    """Rows that a layer sees, [tokens, I] for every group of channels, one tap after another."""
    seen = []
    layer = model.get_submodule(name)
    handle = layer.register_forward_pre_hook(lambda m, args: seen.append(args[0].clone()))
    batch = batch[0] if isinstance(batch, tuple) else batch
    model(**batch) if isinstance(batch, dict) else model(batch)
    handle.remove()
    if not isinstance(layer, nn.Conv1d | nn.Conv2d):
        mask = batch["attention_mask"].bool() if isinstance(batch, dict) else None
        rows = [x[mask] if mask is not None else x.flatten(0, -2) for x in seen]
        return [torch.cat(rows)]
    (x,) = seen
    # One tap of one channel at a time: a convolution that has a single 1 picks it.
    probe = copy.deepcopy(layer)
    channels = x.shape[1] // layer.groups
    taps = layer.weight[0, 0].numel()
    parts = [[] for _ in range(layer.groups)]
    probe.bias = None
    outputs = len(layer.weight) // layer.groups
    for tap in range(taps):
        for channel in range(channels):
            probe.weight.data.zero_()
            probe.weight.data.flatten(2)[:, channel, tap] = 1
            picked = probe(x)
            for part in range(layer.groups):
                parts[part].append(picked[:, part * outputs].flatten())
    return [torch.stack(part, dim=1) for part in parts]
