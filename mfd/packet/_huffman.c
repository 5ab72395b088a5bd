/* Planes of bytes <-> zstd frames that hold Huffman codes alone, no matches.

   compress(plane)           the frame, or None where it would not be smaller or has another form
   decompress(frame, out)    True where the frame is of the form below and fills out, which then
                             holds the content; False for every other frame: zstd itself reads it

   Every zstd reader reads what compress writes. The form: one segment that tells its size in 4
   bytes; blocks of at most 128 KiB, each raw, of one byte, or four Huffman streams and no sequences;
   the tree, its weights in 4 bits each, stands in the first block that needs it, and later ones
   use it again.
   Source: RFC 8878, sections 3.1.1 and 4.2. Stable ABI of Python 3.11; without the interpreter's lock
   while it works; MFD_NATIVE=0 in the environment refuses to load. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* A second version with shifts that need no register of their own, picked at the start. */
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && defined(__GLIBC__)
#define CLONES __attribute__((target_clones("bmi2", "default")))
#else
#define CLONES
#endif

enum {
    BLOCK = 128 << 10, /* bytes in a block, before it is coded */
    BITS = 11,         /* of the longest code */
    WEIGHTS = 128,     /* are written at most; that of the highest symbol follows from them */
    PROBE = 4 << 10, /* counted first */
    HEAD = 9,             /* of a frame: magic, descriptor, size */
    LITERALS = 5,         /* head of four streams, sizes of 18 bits */
    JUMPS = 6,            /* sizes of three streams */
    STREAM = BLOCK / 4 * 2, /* room for one: 11 bits a symbol and 8 bytes */
    KNOWN = 64, /* above the length of a code: four of them add up to 256 */
    SAMPLE = 4 << 10,
    STRIDE = 16 << 10, /* a sample is taken from each */
    BELOW = 8, /* a symbol in eight steps is halved as often: seldom is one missed */
    FEW = 12,          /* symbols: one more would cost bits */
    MANY = 64,
    INPUT_MAX = 1 << 20
};

static const uint8_t MAGIC[5] = {0x28, 0xb5, 0x2f, 0xfd, 0xa0}; /* 4 bytes of size, one segment */

static uint64_t load64(const uint8_t *p)
{
    uint64_t value;
    memcpy(&value, p, sizeof value);
    return value;
}

static void store64(uint8_t *p, uint64_t value) { memcpy(p, &value, sizeof value); }

/* ---- codes ---- */

typedef struct {
    uint8_t length[256]; /* 0: the symbol does not occur */
    uint64_t code[256];  /* the code in the highest bits, its length in the lowest, and KNOWN */
    int longest, last;   /* bits of the longest code; the highest symbol */
    int written;         /* whether the tree stands in a block already */
} Tree;

static void count(const uint8_t *x, size_t n, uint32_t *counts)
{
    uint32_t parts[4][256];
    size_t i = 0;
    memset(parts, 0, sizeof parts);
    for (; i + 8 <= n; i += 8) { /* neighbours are often alike: four tables keep them apart */
        uint64_t w = load64(x + i);
        parts[0][w & 255]++, parts[1][w >> 8 & 255]++;
        parts[2][w >> 16 & 255]++, parts[3][w >> 24 & 255]++;
        parts[0][w >> 32 & 255]++, parts[1][w >> 40 & 255]++;
        parts[2][w >> 48 & 255]++, parts[3][w >> 56]++;
    }
    for (; i < n; i++)
        parts[0][x[i]]++;
    for (int s = 0; s < 256; s++)
        counts[s] = parts[0][s] + parts[1][s] + parts[2][s] + parts[3][s];
}

typedef struct {
    uint32_t count;
    int16_t symbol, parent;
} Node;

static int by_count(const void *a, const void *b)
{
    const Node *x = a, *y = b;
    if (x->count != y->count)
        return x->count < y->count ? -1 : 1;
    return x->symbol - y->symbol;
}

/* Make lengths that use up all codes of at most BITS bits; at least two symbols occur. */
static void shorten(Tree *tree, const uint32_t *counts)
{
    int order[256], used = 0, room = 1 << BITS;
    for (int s = 0; s < 256; s++)
        if (tree->length[s]) {
            if (tree->length[s] > BITS)
                tree->length[s] = BITS;
            room -= 1 << (BITS - tree->length[s]);
            order[used++] = s;
        }
    for (int i = 1; i < used; i++) /* the rarest first */
        for (int j = i; j > 0 && counts[order[j]] < counts[order[j - 1]]; j--) {
            int s = order[j];
            order[j] = order[j - 1], order[j - 1] = s;
        }
    while (room < 0) /* too many short codes: lengthen the longest of them, a rare one */
        for (int bits = BITS - 1; bits > 0; bits--) {
            int i = 0;
            while (i < used && tree->length[order[i]] != bits)
                i++;
            if (i < used) {
                tree->length[order[i]]++;
                room += 1 << (BITS - 1 - bits);
                break;
            }
        }
    while (room > 0) /* codes are left over: shorten what fits, the most frequent first */
        for (int i = used - 1; i >= 0; i--) {
            int gain = 1 << (BITS - tree->length[order[i]]);
            if (gain <= room) {
                tree->length[order[i]]--;
                room -= gain;
                break;
            }
        }
}

/* Find code lengths for the counts. 0 where fewer than two symbols occur. */
static int lengths_of(Tree *tree, const uint32_t *counts)
{
    Node nodes[512];
    int leaves = 0, depth[512], deepest = 0;
    memset(tree->length, 0, sizeof tree->length);
    for (int s = 0; s < 256; s++)
        if (counts[s])
            nodes[leaves++] = (Node){counts[s], (int16_t)s, -1};
    if (leaves < 2)
        return 0;
    qsort(nodes, leaves, sizeof *nodes, by_count);
    int leaf = 0, inner = leaves, next = leaves;
    for (; next < 2 * leaves - 1; next++) { /* two queues: leaves, and sums, both ascend */
        int pair[2];
        for (int k = 0; k < 2; k++)
            pair[k] = inner == next || (leaf < leaves && nodes[leaf].count <= nodes[inner].count)
                          ? leaf++
                          : inner++;
        nodes[next] = (Node){nodes[pair[0]].count + nodes[pair[1]].count, -1, -1};
        nodes[pair[0]].parent = nodes[pair[1]].parent = (int16_t)next;
    }
    depth[next - 1] = 0;
    for (int i = next - 2; i >= 0; i--) {
        depth[i] = depth[nodes[i].parent] + 1;
        if (i < leaves) {
            tree->length[nodes[i].symbol] = (uint8_t)depth[i];
            deepest = depth[i] > deepest ? depth[i] : deepest;
        }
    }
    if (deepest > BITS)
        shorten(tree, counts);
    return 1;
}

/* Number the codes: the longest first, symbols of one length in their order. */
static void number(Tree *tree)
{
    uint32_t next[BITS + 1], of_length[BITS + 1] = {0}, low = 0;
    tree->longest = tree->last = 0;
    for (int s = 0; s < 256; s++)
        if (tree->length[s]) {
            of_length[tree->length[s]]++;
            tree->last = s;
            if (tree->length[s] > tree->longest)
                tree->longest = tree->length[s];
        }
    for (int bits = tree->longest; bits > 0; bits--) {
        next[bits] = low;
        low = (low + of_length[bits]) >> 1;
    }
    for (int s = 0; s < 256; s++) {
        int bits = tree->length[s];
        tree->code[s] =
            bits ? (uint64_t)next[bits]++ << (64 - bits) | KNOWN | (uint64_t)bits : 0;
    }
}

static size_t coded_bits(const Tree *tree, const uint32_t *counts)
{
    size_t bits = 0;
    for (int s = 0; s < 256; s++)
        bits += (size_t)counts[s] * tree->length[s];
    return bits;
}

/* ---- writing ---- */

typedef struct {
    const uint8_t *from, *at; /* symbols still to write lie from `from` to before `at` */
    uint8_t *out;
    uint64_t bits; /* those held are the highest; below them lies what does not count */
    uint64_t held; /* how many, below 8 after a flush; its lowest 6 bits count */
} Writer;

/* Lengths lie below bit 8 of a code, so that up to 56 bits held are never touched by them. */
#define PUT(w)                                                                                     \
    do {                                                                                           \
        uint64_t code_ = code[*--(w).at];                                                          \
        (w).bits = (w).bits >> (code_ & 63) | code_;                                               \
        (w).held += code_;                                                                         \
    } while (0)

#define FLUSH(w)                                                                                   \
    do {                                                                                           \
        store64((w).out, (w).bits >> 1 >> (63 - ((w).held & 63)));                                 \
        (w).out += ((w).held & 63) >> 3;                                                           \
        (w).held &= 7;                                                                             \
    } while (0)

/* Write two streams side by side, the last symbol first: what one waits for, the other fills.
   0 where a symbol has no code: what was written is worth nothing then. */
CLONES static int write_pair(Writer *a, Writer *b, const uint64_t *code)
{
    Writer x = *a, y = *b;
    uint64_t known = 4 * KNOWN; /* a bit of `held` after four codes, and of no fewer */
    Py_ssize_t rounds = x.at - x.from < y.at - y.from ? x.at - x.from : y.at - y.from;
    for (rounds /= 4; rounds > 0; rounds--) { /* 4 codes of 11 bits, and 7 held */
        PUT(x);
        PUT(y);
        PUT(x);
        PUT(y);
        PUT(x);
        PUT(y);
        PUT(x);
        PUT(y);
        known &= x.held & y.held;
        FLUSH(x);
        FLUSH(y);
    }
    *a = x, *b = y;
    return known != 0;
}

/* Write what is left and return the end of the stream, NULL where a symbol has no code. */
static uint8_t *finish(Writer w, const uint64_t *code)
{
    while (w.at > w.from) {
        PUT(w);
        if (!(w.held & KNOWN))
            return NULL;
        FLUSH(w);
    }
    w.bits = w.bits >> 1 | (uint64_t)1 << 63; /* the mark from which a reader begins */
    w.held++;
    FLUSH(w);
    return w.out + (w.held != 0);
}

static uint8_t *write_raw(const uint8_t *x, size_t n, uint8_t *out, int last)
{
    uint32_t head = (uint32_t)last | (uint32_t)n << 3;
    for (int i = 0; i < 3; i++)
        *out++ = (uint8_t)(head >> (8 * i));
    memcpy(out, x, n);
    return out + n;
}

static uint8_t *write_tree(const Tree *tree, uint8_t *out)
{
    *out++ = (uint8_t)(127 + tree->last);
    for (int s = 0; s < tree->last; s++) {
        int weight = tree->length[s] ? tree->longest + 1 - tree->length[s] : 0;
        if (s % 2 == 0)
            *out = (uint8_t)(weight << 4);
        else
            *out++ |= (uint8_t)weight;
    }
    return out + tree->last % 2;
}

/* Write one block in four streams, or as it is where that is not smaller. Returns its end, NULL
   where a symbol has no code. */
static uint8_t *write_block(const uint8_t *x, size_t n, Tree *tree, uint8_t *scratch, uint8_t *out,
                            int last)
{
    size_t quarter = (n + 3) / 4, sizes[4], total = 0;
    Writer w[4];
    if (n < 64)
        return write_raw(x, n, out, last);
    for (int k = 0; k < 4; k++) {
        const uint8_t *from = x + k * quarter;
        w[k] = (Writer){from, k < 3 ? from + quarter : x + n, scratch + k * STREAM, 0, 0};
    }
    if (!write_pair(&w[0], &w[1], tree->code) || !write_pair(&w[2], &w[3], tree->code))
        return NULL;
    for (int k = 0; k < 4; k++) {
        const uint8_t *end = finish(w[k], tree->code);
        if (end == NULL)
            return NULL;
        sizes[k] = (size_t)(end - (scratch + k * STREAM));
        total += sizes[k];
    }
    if (total + 80 > n) /* the heads and the tree take up to 79 bytes */
        return write_raw(x, n, out, last);
    uint8_t *at = out + 3 + LITERALS;
    if (!tree->written)
        at = write_tree(tree, at);
    for (int k = 0; k < 3; k++)
        *at++ = (uint8_t)sizes[k], *at++ = (uint8_t)(sizes[k] >> 8);
    for (int k = 0; k < 4; k++) {
        memcpy(at, scratch + k * STREAM, sizes[k]);
        at += sizes[k];
    }
    uint64_t coded = (uint64_t)(at - out) - 3 - LITERALS;
    uint64_t head = (tree->written ? 3 : 2) | 3 << 2 | (uint64_t)n << 4 | coded << 22;
    for (int i = 0; i < LITERALS; i++)
        out[3 + i] = (uint8_t)(head >> (8 * i));
    *at++ = 0; /* no sequences */
    uint32_t block = (uint32_t)(last | 2 << 1) | (uint32_t)(at - out - 3) << 3;
    for (int i = 0; i < 3; i++)
        out[i] = (uint8_t)(block >> (8 * i));
    tree->written = 1;
    return at;
}

/* Count a quarter of a long plane. Symbols that it may have beside those that were seen get a
   count of 1: what lies between them, a few below the lowest, one above, and zero. Where that would
   cost more than it saves, a symbol that was not seen has no code, and all are counted after all. */
static void sample(const uint8_t *x, size_t n, uint32_t *counts)
{
    int low = 256, high = 0, seen = 0;
    memset(counts, 0, 256 * sizeof *counts);
    for (size_t at = 0; at < n; at += STRIDE) {
        uint32_t some[256];
        count(x + at, n - at < SAMPLE ? n - at : SAMPLE, some);
        for (int s = 0; s < 256; s++)
            counts[s] += some[s];
    }
    for (int s = 255; s > 0; s--)
        if (counts[s]) {
            low = s;
            high = s > high ? s : high;
            seen++;
        }
    if (seen < FEW || high - low >= MANY)
        return;
    for (int s = low > BELOW ? low - BELOW : 0; s <= high + 1 && s < 256; s++)
        counts[s] += !counts[s];
    counts[0] += !counts[0];
}

static int make_tree(Tree *tree, const uint32_t *counts)
{
    if (!lengths_of(tree, counts))
        return 0;
    number(tree);
    tree->written = 0;
    return tree->last <= WEIGHTS;
}

/* Write a frame for a tree. Returns its bytes; 0 where a symbol has no code. */
static size_t write_frame(const uint8_t *x, size_t n, Tree *tree, uint8_t *scratch, uint8_t *out)
{
    memcpy(out, MAGIC, sizeof MAGIC);
    for (int i = 0; i < 4; i++)
        out[sizeof MAGIC + i] = (uint8_t)(n >> (8 * i));
    uint8_t *at = out + HEAD;
    for (size_t done = 0; done < n; done += BLOCK) {
        size_t size = n - done < BLOCK ? n - done : BLOCK;
        at = write_block(x + done, size, tree, scratch, at, done + size == n);
        if (at == NULL)
            return 0;
    }
    return (size_t)(at - out);
}

/* Whether a piece has codes that pay (most mantissas have none), and few repeats: those are for
   matches, which zstd finds. */
static int worth_it(Tree *tree, const uint8_t *x, size_t n)
{
    uint32_t counts[256];
    size_t alike = 0;
    count(x, n, counts);
    for (size_t i = 1; i < n; i++)
        alike += x[i] == x[i - 1];
    if (alike > n / 2 || !lengths_of(tree, counts))
        return 0;
    size_t bits = coded_bits(tree, counts);
    return bits > n * 3 / 2 && bits < n * 8 / 100 * 98;
}

/* Return the bytes of the frame in out, which has room for n + 1 KiB; 0: not smaller, or no tree. */
static size_t compress_plane(const uint8_t *x, size_t n, uint8_t *scratch, uint8_t *out)
{
    uint32_t counts[256];
    Tree tree;
    size_t probe = n < PROBE ? n : PROBE, size = 0;
    if (!worth_it(&tree, x + (n - probe) / 2, probe))
        return 0;
    if (n >= 4 * STRIDE) {
        sample(x, n, counts);
        if (make_tree(&tree, counts))
            size = write_frame(x, n, &tree, scratch, out);
    }
    if (size == 0) {
        count(x, n, counts);
        if (!make_tree(&tree, counts))
            return 0;
        size = write_frame(x, n, &tree, scratch, out);
    }
    return size < n ? size : 0;
}

/* ---- reading ---- */

typedef struct {
    uint8_t symbols[4]; /* as many whole codes as the bits hold */
    uint8_t count, bits;
} Many;

typedef struct {
    uint8_t symbol, bits;
} One;

typedef struct {
    Many many[1 << BITS];
    One one[1 << BITS];
    int longest; /* bits that an index has; 0: no tree yet */
} Table;

/* Read a tree; returns the bytes it takes, 0 where it is not of our form or not sound. */
static size_t read_tree(Table *table, const uint8_t *p, size_t n)
{
    uint8_t weights[256] = {0};
    uint32_t sum = 0, start[BITS + 2] = {0};
    if (n < 1 || p[0] < 128)
        return 0;
    int told = p[0] - 127;
    size_t size = 1 + (size_t)(told + 1) / 2;
    if (n < size)
        return 0;
    for (int s = 0; s < told; s++) {
        weights[s] = s % 2 ? p[1 + s / 2] & 15 : p[1 + s / 2] >> 4;
        if (weights[s] > BITS)
            return 0;
        sum += weights[s] ? 1u << (weights[s] - 1) : 0;
    }
    int longest = 0;
    while (sum >> longest)
        longest++;
    if (sum == 0 || longest > BITS)
        return 0;
    uint32_t left = (1u << longest) - sum; /* what the last symbol has: a power of two */
    if (left & (left - 1))
        return 0;
    while (left >> weights[told])
        weights[told]++;
    for (int s = 0; s <= told; s++) /* the longest codes first */
        if (weights[s])
            start[weights[s] + 1] += 1u << (weights[s] - 1);
    if (start[2] == 0 || start[2] % 2) /* codes of full length come in pairs */
        return 0;
    for (int w = 2; w <= BITS + 1; w++)
        start[w] += start[w - 1];
    for (int s = 0; s <= told; s++)
        if (weights[s]) {
            One one = {(uint8_t)s, (uint8_t)(longest + 1 - weights[s])};
            for (uint32_t i = 0; i < 1u << (weights[s] - 1); i++)
                table->one[start[weights[s]]++] = one;
        }
    uint32_t mask = (1u << longest) - 1;
    for (uint32_t index = 0; index <= mask; index++) {
        Many many = {{0}, 0, 0};
        uint32_t rest = index;
        while (many.count < 4) {
            One one = table->one[rest];
            if (many.bits + one.bits > longest)
                break;
            many.symbols[many.count++] = one.symbol;
            many.bits += one.bits;
            rest = rest << one.bits & mask;
        }
        table->many[index] = many;
    }
    table->longest = longest;
    return size;
}

typedef struct {
    const uint8_t *from; /* first byte of the stream */
    size_t left;         /* bits not read yet; the next ones are the highest */
    uint8_t *out, *end;
} Reader;

static int start_reader(Reader *r, const uint8_t *from, size_t size, uint8_t *out, size_t symbols)
{
    if (size == 0 || from[size - 1] == 0)
        return 0;
    int top = 7;
    while (!(from[size - 1] >> top & 1))
        top--;
    *r = (Reader){from, 8 * (size - 1) + (size_t)top, out, out + symbols};
    return 1;
}

#define TAKE(k)                                                                                    \
    do {                                                                                           \
        const Many *m_ = &many[w##k >> shift];                                                     \
        memcpy(o##k, m_->symbols, 4);                                                              \
        o##k += m_->count;                                                                         \
        w##k <<= m_->bits;                                                                         \
    } while (0)

#define READY(k) (l##k >= 64 && r[k].end - o##k >= 20)
#define FILL(k)                                                                                    \
    do {                                                                                           \
        size_t byte_ = (l##k + 7) >> 3;                                                            \
        w##k = load64(r[k].from + byte_ - 8) << (8 * byte_ - l##k) | 1;                            \
    } while (0)
#define DRAIN(k) l##k -= (size_t)lowest(w##k)

static int lowest(uint64_t value)
{
#if defined(__GNUC__)
    return __builtin_ctzll(value);
#else
    int bit = 0;
    while (!(value >> bit & 1))
        bit++;
    return bit;
#endif
}

/* Rounds of five lookups, of at most 4 symbols and BITS bits each, in all four streams at once: what
   one waits for, the others fill. A window has 57 bits, the next ones highest; its lowest bit is a
   mark, which tells in the end how many were taken. */
CLONES static void read_four(Reader *r, const Table *table)
{
    const Many *many = table->many;
    const int shift = 64 - table->longest;
    uint64_t w0, w1, w2, w3;
    uint8_t *o0 = r[0].out, *o1 = r[1].out, *o2 = r[2].out, *o3 = r[3].out;
    size_t l0 = r[0].left, l1 = r[1].left, l2 = r[2].left, l3 = r[3].left;
    while (READY(0) && READY(1) && READY(2) && READY(3)) {
        FILL(0);
        FILL(1);
        FILL(2);
        FILL(3);
        for (int i = 0; i < 5; i++) {
            TAKE(0);
            TAKE(1);
            TAKE(2);
            TAKE(3);
        }
        DRAIN(0);
        DRAIN(1);
        DRAIN(2);
        DRAIN(3);
    }
    r[0].out = o0, r[1].out = o1, r[2].out = o2, r[3].out = o3;
    r[0].left = l0, r[1].left = l1, r[2].left = l2, r[3].left = l3;
}

/* Read what is left, symbol by symbol. 0 where codes and symbols do not end together. */
static int read_rest(Reader *r, const Table *table)
{
    const uint32_t mask = (1u << table->longest) - 1;
    while (r->out < r->end) {
        uint32_t bits = 0; /* the next `longest` bits, zeros below the first one */
        size_t low = r->left > (size_t)table->longest ? r->left - table->longest : 0;
        for (size_t byte = low >> 3; byte <= (r->left ? (r->left - 1) >> 3 : 0); byte++)
            bits |= (uint32_t)r->from[byte] << (8 * (byte - (low >> 3)));
        bits = r->left ? bits >> (low & 7) & ((1u << (r->left - low)) - 1) : 0;
        bits = bits << (table->longest - (int)(r->left - low)) & mask;
        One one = table->one[bits];
        if (one.bits > r->left)
            return 0;
        r->left -= one.bits;
        *r->out++ = one.symbol;
    }
    return r->left == 0;
}

/* Read a block of four streams into exactly n bytes. */
static int read_streams(const Table *table, const uint8_t *p, size_t size, uint8_t *out, size_t n)
{
    size_t quarter = (n + 3) / 4, sizes[4], used = JUMPS;
    Reader r[4];
    if (size < JUMPS || n <= 3 * quarter)
        return 0;
    for (int k = 0; k < 3; k++) {
        sizes[k] = (size_t)p[2 * k] | (size_t)p[2 * k + 1] << 8;
        used += sizes[k];
    }
    if (used > size)
        return 0;
    sizes[3] = size - used;
    p += JUMPS;
    for (int k = 0; k < 4; k++) {
        size_t symbols = k < 3 ? quarter : n - 3 * quarter;
        if (!start_reader(&r[k], p, sizes[k], out + k * quarter, symbols))
            return 0;
        p += sizes[k];
    }
    read_four(r, table);
    for (int k = 0; k < 4; k++)
        if (!read_rest(&r[k], table))
            return 0;
    return 1;
}

/* Read a compressed block; returns the bytes written, 0 where it is not of our form or not sound. */
static size_t read_block(Table *table, const uint8_t *p, size_t size, uint8_t *out, size_t room)
{
    uint64_t head = 0;
    if (size < LITERALS + 1 || p[size - 1] != 0) /* sequences */
        return 0;
    for (int i = 0; i < LITERALS; i++)
        head |= (uint64_t)p[i] << (8 * i);
    int kind = head & 3;
    size_t n = head >> 4 & 0x3ffff, coded = head >> 22 & 0x3ffff, tree = 0;
    if (kind < 2 || (head >> 2 & 3) != 3 || coded != size - LITERALS - 1 || n > room || n > BLOCK)
        return 0;
    p += LITERALS;
    if (kind == 2 && (tree = read_tree(table, p, coded)) == 0)
        return 0;
    if (!table->longest || !read_streams(table, p + tree, coded - tree, out, n))
        return 0;
    return n;
}

/* Read a whole frame. 0 where it is not of our form, or not sound. */
static int decompress_plane(const uint8_t *p, size_t size, uint8_t *out, size_t n, Table *table)
{
    size_t at = HEAD, done = 0;
    int last = 0;
    if (size < HEAD || memcmp(p, MAGIC, sizeof MAGIC) != 0)
        return 0;
    for (int i = 0; i < 4; i++)
        if (p[sizeof MAGIC + i] != (uint8_t)(n >> (8 * i)))
            return 0;
    table->longest = 0;
    while (!last) {
        if (size - at < 3)
            return 0;
        uint32_t head = (uint32_t)p[at] | (uint32_t)p[at + 1] << 8 | (uint32_t)p[at + 2] << 16;
        size_t body = head >> 3, made = 0;
        last = head & 1;
        at += 3;
        switch (head >> 1 & 3) {
        case 0: /* raw */
            if (body > size - at || body > n - done || body > BLOCK)
                return 0;
            memcpy(out + done, p + at, body);
            made = body;
            break;
        case 2:
            if (body > size - at || body > BLOCK)
                return 0;
            made = read_block(table, p + at, body, out + done, n - done);
            if (made == 0)
                return 0;
            break;
        default:
            return 0;
        }
        at += body;
        done += made;
    }
    return at == size && done == n;
}

/* ---- Python ---- */

static PyObject *compress(PyObject *self, PyObject *plane)
{
    Py_buffer x;
    PyObject *made = NULL;
    size_t size = 0;
    (void)self;
    if (PyObject_GetBuffer(plane, &x, PyBUF_SIMPLE) < 0)
        return NULL;
    uint8_t *room = x.len <= INPUT_MAX ? malloc((size_t)x.len + 1024 + 4 * STREAM) : NULL;
    if (x.len > INPUT_MAX)
        PyErr_SetString(PyExc_ValueError, "a plane of more than 1 MiB");
    else if (room == NULL)
        PyErr_NoMemory();
    else {
        Py_BEGIN_ALLOW_THREADS
        size = compress_plane(x.buf, (size_t)x.len, room, room + 4 * STREAM);
        Py_END_ALLOW_THREADS
        made = size ? PyBytes_FromStringAndSize((char *)room + 4 * STREAM, (Py_ssize_t)size)
                    : Py_NewRef(Py_None);
    }
    free(room);
    PyBuffer_Release(&x);
    return made;
}

static PyObject *decompress(PyObject *self, PyObject *args)
{
    PyObject *frame_obj, *out_obj;
    Py_buffer frame, out;
    int right = 0;
    (void)self;
    if (!PyArg_ParseTuple(args, "OO", &frame_obj, &out_obj) ||
        PyObject_GetBuffer(frame_obj, &frame, PyBUF_SIMPLE) < 0)
        return NULL;
    if (PyObject_GetBuffer(out_obj, &out, PyBUF_WRITABLE) < 0) {
        PyBuffer_Release(&frame);
        return NULL;
    }
    Table *table = malloc(sizeof *table);
    if (table == NULL)
        PyErr_NoMemory();
    else if (out.len > INPUT_MAX)
        PyErr_SetString(PyExc_ValueError, "a plane of more than 1 MiB");
    else {
        Py_BEGIN_ALLOW_THREADS
        right = decompress_plane(frame.buf, (size_t)frame.len, out.buf, (size_t)out.len, table);
        Py_END_ALLOW_THREADS
    }
    free(table);
    PyBuffer_Release(&out);
    PyBuffer_Release(&frame);
    if (PyErr_Occurred())
        return NULL;
    return PyBool_FromLong(right);
}

static PyMethodDef METHODS[] = {
    {"compress", compress, METH_O, "compress(plane)"},
    {"decompress", decompress, METH_VARARGS, "decompress(frame, out)"},
    {NULL, NULL, 0, NULL},
};

static int start(PyObject *module)
{
    const char *wanted = getenv("MFD_NATIVE");
    const uint16_t one = 1;
    (void)module;
    if (wanted != NULL && strcmp(wanted, "0") == 0) {
        PyErr_SetString(PyExc_ImportError, "turned off by MFD_NATIVE=0");
        return -1;
    }
    if (*(const uint8_t *)&one != 1) {
        PyErr_SetString(PyExc_ImportError, "made for little-endian machines");
        return -1;
    }
    return 0;
}

static PyModuleDef_Slot SLOTS[] = {{Py_mod_exec, (void *)start}, {0, NULL}};

static struct PyModuleDef MODULE = {
    PyModuleDef_HEAD_INIT, "_huffman", "Huffman frames: see coder.py.", 0, METHODS, SLOTS,
    NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__huffman(void)
{
    return PyModuleDef_Init(&MODULE);
}
