/* rtl/compute/engine.py and vectors.py: vectors meet their tiles. */

static void step_engine(Machine *m) {
    State *s = &m->state;
    Wires *w = &m->wires;
    Engine *engine = &s->engine;
    const Piece *vector = &s->reader.vectors;
    num advance = !w->blocked;
    num wants_tile = vector->new_tile && !s->tile.full;
    w->busy = vector->valid && advance && !wants_tile;
    w->take = w->busy && vector->new_tile;
    w->layer_ends = w->busy && vector->layer_ends;
    w->awaits_vectors = advance && !vector->valid;
    w->awaits_weights = advance && vector->valid && wants_tile;
    if (advance) {
        num last = engine->there[3];
        engine->done = (last & VALID) && (last & LAST) ? last : 0;
        engine->there[3] = engine->there[2];
        engine->there[2] = engine->there[1];
        engine->there[1] = engine->there[0];
        engine->there[0] = w->busy ? vector->tag | VALID : 0;
    }
}

/* The result is whether the walk's piece is taken. */
static num step_reader(Machine *m) {
    State *s = &m->state;
    VectorReader *reader = &s->reader;
    num advance = !reader->vectors.valid || m->wires.busy;
    m->wires.released = s->walk.pieces.valid && advance && s->walk.pieces.layer_ends;
    if (!advance) return 0;
    num there = reader->piece.valid && reader->piece.ends;
    reader->vectors = reader->piece;
    reader->vectors.valid = there;
    reader->piece = s->walk.pieces;
    return 1;
}
