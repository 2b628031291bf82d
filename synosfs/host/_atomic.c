/*
 * The atomic steps of glibc's named semaphores (<internaltypes.h>, struct new_sem), on memory that may vanish.
 *
 * A semaphore is one word of 64 bits in a file that its users map: the low half is its value, the high half counts who
 * waits. Whoever owns the file can shape it: forge the word, which harms nobody here, and truncate the file, which
 * makes touching the mapped page raise SIGBUS. So each step is made under guard: the signal takes the thread back to
 * where the step began, and the answer is GONE. Nothing in between holds a lock or owns anything.
 *
 * Each step ends: a compare-and-swap that others spoil again and again gives up, and says BUSY.
 *
 * It knows nothing of sleeping and waking; that is futex(2)'s affair, in posix_sem.py.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <limits.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>

/* What is no count. */
enum { GONE = -1, BUSY = -2, FULL = -3 };

#define MOST_TRIES 10000
#define VALUE(word) ((uint32_t)(word))
#define WAITERS_SHIFT 32

typedef _Atomic uint64_t Word;
typedef long Step(Word *word, long n);

/* Where this thread goes on when what it touches is gone; NULL while it touches nothing. */
static _Thread_local sigjmp_buf *volatile guard;

/* Who had the signal before. */
static struct sigaction previous;

static void on_bus_error(int number, siginfo_t *info, void *context)
{
    (void)context;
    if (guard != NULL && info->si_code > 0)
        siglongjmp(*guard, 1);
    /* Not ours. What faulted does so again, for who had the signal before; one that was sent is sent again. */
    sigaction(SIGBUS, &previous, NULL);
    if (info->si_code <= 0)
        raise(number);
}

static long guarded(Step *step, Word *word, long n)
{
    sigjmp_buf here;
    long result;

    if (sigsetjmp(here, 0) != 0) { /* the mask needs no saving: SA_NODEFER */
        guard = NULL;
        return GONE;
    }
    guard = &here;
    atomic_signal_fence(memory_order_seq_cst);
    result = step(word, n);
    atomic_signal_fence(memory_order_seq_cst);
    guard = NULL;
    return result;
}

static long take_step(Word *word, long n)
{
    uint64_t seen = atomic_load_explicit(word, memory_order_relaxed);

    (void)n;
    for (int tries = 0; tries < MOST_TRIES; tries++) {
        if (VALUE(seen) == 0)
            return 0;
        if (atomic_compare_exchange_weak_explicit(word, &seen, seen - 1, memory_order_acquire, memory_order_relaxed))
            return 1;
    }
    return BUSY;
}

static long post_step(Word *word, long n)
{
    uint64_t seen = atomic_load_explicit(word, memory_order_relaxed);

    (void)n;
    for (int tries = 0; tries < MOST_TRIES; tries++) {
        if (VALUE(seen) >= INT_MAX) /* SEM_VALUE_MAX; a forged value may be above it */
            return FULL;
        if (atomic_compare_exchange_weak_explicit(word, &seen, seen + 1, memory_order_release, memory_order_relaxed))
            return (long)(seen >> WAITERS_SHIFT);
    }
    return BUSY;
}

static long add_waiters_step(Word *word, long n)
{
    atomic_fetch_add_explicit(word, (uint64_t)n << WAITERS_SHIFT, memory_order_relaxed);
    return 0;
}

static long value_step(Word *word, long n)
{
    (void)n;
    return (long)VALUE(atomic_load_explicit(word, memory_order_acquire));
}

static PyObject *run(Step *step, PyObject *address, long n)
{
    Word *word = PyLong_AsVoidPtr(address);

    if (word == NULL && PyErr_Occurred())
        return NULL;
    return PyLong_FromLong(guarded(step, word, n));
}

static PyObject *try_take(PyObject *module, PyObject *address)
{
    (void)module;
    return run(take_step, address, 0);
}

static PyObject *post(PyObject *module, PyObject *address)
{
    (void)module;
    return run(post_step, address, 0);
}

static PyObject *value(PyObject *module, PyObject *address)
{
    (void)module;
    return run(value_step, address, 0);
}

static PyObject *add_waiters(PyObject *module, PyObject *arguments)
{
    PyObject *address;
    long n;

    (void)module;
    if (!PyArg_ParseTuple(arguments, "Ol", &address, &n))
        return NULL;
    return run(add_waiters_step, address, n);
}

static PyObject *catch_bus_errors(PyObject *module, PyObject *nothing)
{
    struct sigaction action = {.sa_sigaction = on_bus_error, .sa_flags = SA_SIGINFO | SA_NODEFER};

    (void)module;
    (void)nothing;
    sigemptyset(&action.sa_mask);
    if (sigaction(SIGBUS, &action, &previous) == -1)
        return PyErr_SetFromErrno(PyExc_OSError);
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"try_take", try_take, METH_O, "1: taken; 0: the value is 0."},
    {"post", post, METH_O, "Add one; how many wait. FULL at SEM_VALUE_MAX."},
    {"value", value, METH_O, "The value."},
    {"add_waiters", add_waiters, METH_VARARGS, "Count so many more (or fewer) who wait."},
    {"catch_bus_errors", catch_bus_errors, METH_NOARGS, "Once, before the first step."},
    {NULL, NULL, 0, NULL},
};

static int fill(PyObject *module)
{
    if (PyModule_AddIntMacro(module, GONE) || PyModule_AddIntMacro(module, BUSY))
        return -1;
    return PyModule_AddIntMacro(module, FULL);
}

static PyModuleDef_Slot slots[] = {{Py_mod_exec, fill}, {0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_atomic",
    .m_doc = "Guarded atomic steps.",
    .m_methods = methods,
    .m_slots = slots,
};

PyMODINIT_FUNC PyInit__atomic(void);
PyMODINIT_FUNC PyInit__atomic(void)
{
    return PyModuleDef_Init(&definition);
}
