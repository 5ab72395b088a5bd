/* Byte planes of the elements of a raw chunk, and back: planes.py in C, byte for byte the same.

   split(raw, base, width, code, out)     out takes the planes one after the other
   merge(planes, base, width, code, out)  out takes the elements

   raw, base, out: contiguous buffers; planes: a tuple of `width` of them; base: bytes or None.
   code 0: rotated by one bit; 1: difference of integers; 2: difference of floats.
   Source: spec/packet.md, section "Chunk encodings". Stable ABI of Python 3.11; without the
   interpreter's lock while it works; MFD_NATIVE=0 in the environment refuses to load. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(_MSC_VER)
#define RESTRICT __restrict
#else
#define RESTRICT restrict
#endif

/* A second version for wider registers, picked when the module is loaded. */
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && defined(__GLIBC__)
#define CLONES __attribute__((target_clones("avx2", "default")))
#else
#define CLONES
#endif

enum { ROTATED, INTEGERS, FLOATS };
enum { RUN = 1024 }; /* elements at a time: those between two loops stay in the nearest cache */

#define TOP(T) (8 * sizeof(T) - 1)
/* All ones where the sign bit is set. */
#define SIGN(T, x) ((T)(0 - (T)((x) >> TOP(T))))
/* The integer whose order is that of the floats: negative ones count downwards. Its own inverse. */
#define ORDERED(T, x) ((T)((x) ^ (T)(SIGN(T, x) >> 1)))

#define DEFINE(T, NAME)                                                                            \
    CLONES static void NAME##_code(const T *RESTRICT x, const T *RESTRICT base, T *RESTRICT y,     \
                                   Py_ssize_t n, int code)                                         \
    {                                                                                              \
        if (code == ROTATED)                                                                       \
            for (Py_ssize_t i = 0; i < n; i++)                                                     \
                y[i] = sizeof(T) == 1 ? x[i] : (T)((T)(x[i] << 1) | (x[i] >> TOP(T)));             \
        else if (code == INTEGERS)                                                                 \
            for (Py_ssize_t i = 0; i < n; i++) {                                                   \
                T d = (T)(x[i] - base[i]);                                                         \
                y[i] = (T)((T)(d << 1) ^ SIGN(T, d));                                              \
            }                                                                                      \
        else                                                                                       \
            for (Py_ssize_t i = 0; i < n; i++) {                                                   \
                T d = (T)(ORDERED(T, x[i]) - ORDERED(T, base[i]));                                 \
                y[i] = (T)((T)(d << 1) ^ SIGN(T, d));                                              \
            }                                                                                      \
    }                                                                                              \
                                                                                                   \
    CLONES static void NAME##_decode(const T *RESTRICT y, const T *RESTRICT base, T *RESTRICT x,   \
                                     Py_ssize_t n, int code)                                       \
    {                                                                                              \
        if (code == ROTATED)                                                                       \
            for (Py_ssize_t i = 0; i < n; i++)                                                     \
                x[i] = sizeof(T) == 1 ? y[i] : (T)((y[i] >> 1) | (T)(y[i] << TOP(T)));             \
        else if (code == INTEGERS)                                                                 \
            for (Py_ssize_t i = 0; i < n; i++)                                                     \
                x[i] = (T)(((y[i] >> 1) ^ (T)(0 - (T)(y[i] & 1))) + base[i]);                      \
        else                                                                                       \
            for (Py_ssize_t i = 0; i < n; i++) {                                                   \
                T d = (T)(((y[i] >> 1) ^ (T)(0 - (T)(y[i] & 1))) + ORDERED(T, base[i]));           \
                x[i] = ORDERED(T, d);                                                              \
            }                                                                                      \
    }

DEFINE(uint8_t, u8)
DEFINE(uint16_t, u16)
DEFINE(uint32_t, u32)
DEFINE(uint64_t, u64)

#define PLANE(k) (uint8_t)(y[i] >> (8 * (k)))
#define PUT(k) p##k[i] = PLANE(k)
#define GET(T, k) ((T)p##k[i] << (8 * (k)))

CLONES static void u16_split(const uint16_t *RESTRICT y, uint8_t *RESTRICT p0,
                             uint8_t *RESTRICT p1, Py_ssize_t n)
{
    for (Py_ssize_t i = 0; i < n; i++)
        PUT(0), PUT(1);
}

CLONES static void u16_merge(const uint8_t *RESTRICT p0, const uint8_t *RESTRICT p1,
                             uint16_t *RESTRICT y, Py_ssize_t n)
{
    for (Py_ssize_t i = 0; i < n; i++)
        y[i] = (uint16_t)(GET(uint16_t, 0) | GET(uint16_t, 1));
}

CLONES static void u32_split(const uint32_t *RESTRICT y, uint8_t *RESTRICT p0,
                             uint8_t *RESTRICT p1, uint8_t *RESTRICT p2, uint8_t *RESTRICT p3,
                             Py_ssize_t n)
{
    for (Py_ssize_t i = 0; i < n; i++)
        PUT(0), PUT(1), PUT(2), PUT(3);
}

CLONES static void u32_join(const uint16_t *RESTRICT low, const uint16_t *RESTRICT high,
                            uint32_t *RESTRICT y, Py_ssize_t n)
{
    for (Py_ssize_t i = 0; i < n; i++)
        y[i] = (uint32_t)low[i] | (uint32_t)high[i] << 16;
}

/* By way of pairs: wider at once, the compiler's code is slower. */
static void u32_merge(const uint8_t *p0, const uint8_t *p1, const uint8_t *p2, const uint8_t *p3,
                      uint32_t *y, Py_ssize_t n)
{
    uint16_t low[RUN], high[RUN];
    u16_merge(p0, p1, low, n);
    u16_merge(p2, p3, high, n);
    u32_join(low, high, y, n);
}

CLONES static void u64_halve(const uint64_t *RESTRICT y, uint32_t *RESTRICT low,
                             uint32_t *RESTRICT high, Py_ssize_t n)
{
    for (Py_ssize_t i = 0; i < n; i++)
        low[i] = (uint32_t)y[i], high[i] = (uint32_t)(y[i] >> 32);
}

CLONES static void u64_join(const uint32_t *RESTRICT low, const uint32_t *RESTRICT high,
                            uint64_t *RESTRICT y, Py_ssize_t n)
{
    for (Py_ssize_t i = 0; i < n; i++)
        y[i] = (uint64_t)low[i] | (uint64_t)high[i] << 32;
}

/* One run of at most RUN elements: where they lie if that is aligned, else a copy. */
typedef union {
    uint8_t b[8 * RUN];
    uint16_t u16[RUN];
    uint32_t u32[2 * RUN];
    uint64_t u64[RUN];
} Block;

static void split_run(const Block *x, const Block *base, Block *y, uint8_t **p, Py_ssize_t n,
                      int width, int code)
{
    Block halves;
    switch (width) {
    case 1:
        u8_code(x->b, base->b, p[0], n, code);
        return;
    case 2:
        u16_code(x->u16, base->u16, y->u16, n, code);
        u16_split(y->u16, p[0], p[1], n);
        return;
    case 4:
        u32_code(x->u32, base->u32, y->u32, n, code);
        u32_split(y->u32, p[0], p[1], p[2], p[3], n);
        return;
    default:
        u64_code(x->u64, base->u64, y->u64, n, code);
        u64_halve(y->u64, halves.u32, halves.u32 + RUN, n);
        u32_split(halves.u32, p[0], p[1], p[2], p[3], n);
        u32_split(halves.u32 + RUN, p[4], p[5], p[6], p[7], n);
    }
}

static void merge_run(uint8_t **p, const Block *base, Block *y, Block *x, Py_ssize_t n, int width,
                      int code)
{
    Block halves;
    switch (width) {
    case 1:
        u8_decode(p[0], base->b, x->b, n, code);
        return;
    case 2:
        u16_merge(p[0], p[1], y->u16, n);
        u16_decode(y->u16, base->u16, x->u16, n, code);
        return;
    case 4:
        u32_merge(p[0], p[1], p[2], p[3], y->u32, n);
        u32_decode(y->u32, base->u32, x->u32, n, code);
        return;
    default:
        u32_merge(p[0], p[1], p[2], p[3], halves.u32, n);
        u32_merge(p[4], p[5], p[6], p[7], halves.u32 + RUN, n);
        u64_join(halves.u32, halves.u32 + RUN, y->u64, n);
        u64_decode(y->u64, base->u64, x->u64, n, code);
    }
}

static int in_place(const void *elements)
{
    return (uintptr_t)elements % sizeof(uint64_t) == 0;
}

/* Reads raw and writes the planes, or the other way round where `merging`. */
static void run_all(uint8_t *raw, const uint8_t *base, uint8_t **planes, Py_ssize_t count,
                    int width, int code, int merging)
{
    Block x, y, b;
    uint8_t *p[8];
    if (base == NULL)
        memset(&b, 0, sizeof b);
    for (Py_ssize_t at = 0; at < count; at += RUN) {
        Py_ssize_t n = count - at < RUN ? count - at : RUN;
        size_t bytes = (size_t)n * width;
        for (int k = 0; k < width; k++)
            p[k] = planes[k] + at;
        const Block *from = &b;
        if (base != NULL)
            from = in_place(base + at * width) ? (const void *)(base + at * width)
                                               : memcpy(&b, base + at * width, bytes);
        Block *here = in_place(raw + at * width) ? (void *)(raw + at * width) : &x;
        if (!merging && here == &x)
            memcpy(&x, raw + at * width, bytes);
        if (!merging)
            split_run(here, from, &y, p, n, width, code);
        else
            merge_run(p, from, &y, here, n, width, code);
        if (merging && here == &x)
            memcpy(raw + at * width, &x, bytes);
    }
}

static int check(int width, int code, int has_base)
{
    if ((width == 1 || width == 2 || width == 4 || width == 8) && code >= ROTATED &&
        code <= FLOATS && has_base == (code != ROTATED))
        return 1;
    PyErr_SetString(PyExc_ValueError, "no such width, or a code without what it needs");
    return 0;
}

static int fits(int right)
{
    if (!right)
        PyErr_SetString(PyExc_ValueError, "buffers of unequal length");
    return right;
}

static PyObject *split(PyObject *self, PyObject *args)
{
    PyObject *raw_obj, *base_obj, *out_obj;
    Py_buffer raw, base = {0}, out;
    int width, code, done = 0;
    uint8_t *planes[8];
    (void)self;
    if (!PyArg_ParseTuple(args, "OOiiO", &raw_obj, &base_obj, &width, &code, &out_obj) ||
        !check(width, code, base_obj != Py_None) ||
        PyObject_GetBuffer(raw_obj, &raw, PyBUF_SIMPLE) < 0)
        return NULL;
    if (PyObject_GetBuffer(out_obj, &out, PyBUF_WRITABLE) < 0)
        goto raw_only;
    if (base_obj != Py_None && PyObject_GetBuffer(base_obj, &base, PyBUF_SIMPLE) < 0)
        goto both;
    if (fits(raw.len % width == 0 && out.len == raw.len && (!base.obj || base.len == raw.len))) {
        Py_ssize_t count = raw.len / width;
        for (int k = 0; k < width; k++)
            planes[k] = (uint8_t *)out.buf + k * count;
        Py_BEGIN_ALLOW_THREADS
        run_all(raw.buf, base.buf, planes, count, width, code, 0);
        Py_END_ALLOW_THREADS
        done = 1;
    }
    if (base.obj != NULL)
        PyBuffer_Release(&base);
both:
    PyBuffer_Release(&out);
raw_only:
    PyBuffer_Release(&raw);
    if (!done)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *merge(PyObject *self, PyObject *args)
{
    PyObject *planes_obj, *base_obj, *out_obj;
    Py_buffer views[8], base = {0}, out;
    int width, code, held = 0, done = 0, right;
    uint8_t *planes[8];
    (void)self;
    if (!PyArg_ParseTuple(args, "OOiiO", &planes_obj, &base_obj, &width, &code, &out_obj) ||
        !check(width, code, base_obj != Py_None) || !fits(PyTuple_Size(planes_obj) == width) ||
        PyObject_GetBuffer(out_obj, &out, PyBUF_WRITABLE) < 0)
        return NULL;
    right = out.len % width == 0;
    for (; held < width; held++) {
        if (PyObject_GetBuffer(PyTuple_GetItem(planes_obj, held), &views[held], PyBUF_SIMPLE) < 0)
            goto release;
        planes[held] = views[held].buf;
        right = right && views[held].len == out.len / width;
    }
    if (base_obj != Py_None && PyObject_GetBuffer(base_obj, &base, PyBUF_SIMPLE) < 0)
        goto release;
    if (fits(right && (!base.obj || base.len == out.len))) {
        Py_BEGIN_ALLOW_THREADS
        run_all(out.buf, base.buf, planes, out.len / width, width, code, 1);
        Py_END_ALLOW_THREADS
        done = 1;
    }
    if (base.obj != NULL)
        PyBuffer_Release(&base);
release:
    while (held > 0)
        PyBuffer_Release(&views[--held]);
    PyBuffer_Release(&out);
    if (!done)
        return NULL;
    Py_RETURN_NONE;
}

static PyMethodDef METHODS[] = {
    {"split", split, METH_VARARGS, "split(raw, base, width, code, out)"},
    {"merge", merge, METH_VARARGS, "merge(planes, base, width, code, out)"},
    {NULL, NULL, 0, NULL},
};

static int start(PyObject *module)
{
    const char *wanted = getenv("MFD_NATIVE");
    (void)module;
    if (wanted == NULL || strcmp(wanted, "0") != 0)
        return 0;
    PyErr_SetString(PyExc_ImportError, "turned off by MFD_NATIVE=0");
    return -1;
}

static PyModuleDef_Slot SLOTS[] = {{Py_mod_exec, (void *)start}, {0, NULL}};

static struct PyModuleDef MODULE = {
    PyModuleDef_HEAD_INIT, "_planes", "Byte planes: see planes.py.", 0, METHODS, SLOTS,
    NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__planes(void)
{
    return PyModuleDef_Init(&MODULE);
}
