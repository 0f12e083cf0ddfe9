/* Columns, and the lists in which they wait. */
#include <stdlib.h>

typedef struct Column Column;

/* One access of a column. It is in one line at most, and, if its row is open, among the hits. */
enum { LINE, HITS, LISTS };

struct Column {
    Column *next[LISTS], *before[LISTS];
    Column *other;              /* a read: asked for next; a write: in the same bucket; or free */
    uint64_t number;            /* of the column in the memory: address / bytes */
    wide order;                 /* of the requests, or of the writes */
    wide row, arrival;
    wide due;                   /* clock in which its data have been transferred; -1: not decided */
    num bank, channel;          /* rank, group and bank in one number */
    num beats;                  /* that end with it and have not been taken */
};

typedef struct { Column *first, *last; wide count; } List;

static void put_behind(List *list, num which, Column *place, Column *column) {
    Column *next = place ? place->next[which] : list->first;
    column->before[which] = place;
    column->next[which] = next;
    if (place) place->next[which] = column;
    else list->first = column;
    if (next) next->before[which] = column;
    else list->last = column;
    list->count += 1;
}

static void append(List *list, num which, Column *column) {
    put_behind(list, which, list->last, column);
}

/* By the order of columns. */
static void insert(List *list, num which, Column *column) {
    Column *place = list->last;
    while (place && place->order > column->order) place = place->before[which];
    put_behind(list, which, place, column);
}

static void take_out(List *list, num which, Column *column) {
    Column *next = column->next[which], *before = column->before[which];
    if (next) next->before[which] = before;
    else list->last = before;
    if (before) before->next[which] = next;
    else list->first = next;
    list->count -= 1;
}

/* Columns are used again: a long stream takes no more than waits at once. */
enum { BLOCK = 64 };
typedef struct Block Block;
struct Block { Block *next; Column columns[BLOCK]; };
typedef struct { Column *free; Block *blocks; } Pool;

/* NULL if there is no memory. */
static Column *new_column(Pool *pool) {
    if (!pool->free) {
        Block *block = malloc(sizeof(Block));
        if (!block) return NULL;
        block->next = pool->blocks;
        pool->blocks = block;
        for (num i = 0; i < BLOCK; i++) {
            block->columns[i].other = pool->free;
            pool->free = &block->columns[i];
        }
    }
    Column *column = pool->free;
    pool->free = column->other;
    return column;
}

static void free_column(Pool *pool, Column *column) {
    column->other = pool->free;
    pool->free = column;
}
