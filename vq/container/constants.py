"""Numbers and names that the writer, the readers and the hardware share."""

__all__ = [
    "AXES",
    "CHUNK_SUBVECTORS",
    "CODE_MAX",
    "DTYPE_BYTES",
    "FP16_MAX",
    "FP16_MIN",
    "GRANULE_BYTES",
    "GROUPED_BITS",
    "INDEX_BITS_MAX",
    "INTEGER_PREFIX",
    "LAYOUT",
    "LAYOUTS",
    "METHODS",
    "OPS",
    "PAGE_BYTES",
    "RUNTIME_LAYOUT",
    "RUNTIME_PREFIX",
    "SCALE_MAX",
    "SUBVECTOR_MAX",
    "TILE_OUTPUTS",
    "TOKENIZER",
]

#: Of files whose weights are all there is to a model.
LAYOUT = "vqstream/1"
#: Of files with parts that remain at run time, without which the weights mean something else.
RUNTIME_LAYOUT = "vqstream/2"
LAYOUTS = (LAYOUT, RUNTIME_LAYOUT)

#: Sub-vectors in one full chunk of a stream: the widest bus, so that a plane is whole beats.
CHUNK_SUBVECTORS = 512
#: Alignment of every tensor and of every part of a chunk, in bytes (one DRAM burst).
GRANULE_BYTES = 64
#: Alignment of the data section in the file, in bytes (one page; an AXI burst never crosses it).
PAGE_BYTES = 4096
#: Default number of outputs in one block of the stream order.
TILE_OUTPUTS = 16
#: What the names of an integer graph's tensors begin with; a model's own must not.
INTEGER_PREFIX = "_integer."
#: What the names of the tensors begin with that remain at run time; a model's own must not.
RUNTIME_PREFIX = "_runtime."
#: Name of the kept tensor that says how text becomes a model's tokens; a model's own has another.
TOKENIZER = "_tokenizer"
#: Widest index, in bits.
INDEX_BITS_MAX = 16
#: Longest sub-vector, in weights.
SUBVECTOR_MAX = 64
#: Largest magnitude of an fp32 scale; its product with any int8 is finite.
SCALE_MAX = 2.0**120

#: Largest magnitude of a codeword or an int8 weight, so that a decoder emits int8 either way.
CODE_MAX = 127
#: Least positive and greatest number of the fp16 scales of groups.
FP16_MIN, FP16_MAX = 2.0**-24, 65504.0

#: Grouped scalar methods and the width of their codes, in bits.
GROUPED_BITS = {"int4": 4, "int3": 3, "int2": 2}
METHODS = ("ssvq", "vq", "int8", *GROUPED_BITS)
#: Operations a weight may belong to. The first dimension of the tensor is always the outputs.
#: but for ``linear_t``, whose module holds the transpose.
OPS = ("linear", "linear_t", "conv1d", "conv2d", "embedding")
#: Directions of a sub-vector: along the inputs (channels innermost), along the outputs, or along
#: the inputs with taps innermost.
AXES = ("in", "out", "kernel")

#: Bytes of one element, for every safetensors dtype that a container may keep.
DTYPE_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1,
    "U16": 2, "I16": 2, "F16": 2, "BF16": 2,
    "U32": 4, "I32": 4, "F32": 4,
    "U64": 8, "I64": 8, "F64": 8,
}  # fmt: skip
