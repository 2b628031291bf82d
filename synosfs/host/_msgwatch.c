/*
 * Waiting for a message and leaving it in its queue: msgop(2).
 *
 * A receive with no room for data sleeps until a message of the type is there, and fails with E2BIG. An empty message
 * fits: the sender's own call hands it over (pipelined_send in ipc/msg.c), and no flag prevents that. So it is sent back
 * here, at once, by the thread that got it and without waiting for the interpreter: when the daemon is killed in
 * between, the message is lost.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <errno.h>
#include <sys/ipc.h>
#include <sys/msg.h>

static PyObject *await_message(PyObject *module, PyObject *args)
{
    struct { long type; } message = {0};
    int id, flags, error = 0, is_back = 1;
    long type;

    (void)module;
    if (!PyArg_ParseTuple(args, "ili", &id, &type, &flags))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    if (msgrcv(id, &message, 0, type, flags) == 0)
        is_back = msgsnd(id, &message, 0, IPC_NOWAIT) == 0;
    else if (errno != E2BIG)
        error = errno;
    Py_END_ALLOW_THREADS
    if (error) {
        errno = error;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    return PyLong_FromLong(is_back ? 0 : message.type);
}

static PyMethodDef methods[] = {
    {"await_message", await_message, METH_VARARGS, "0: one is there; else the type of an empty one, which was taken."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_msgwatch",
    .m_doc = "Waiting for a message that stays where it is.",
    .m_methods = methods,
};

PyMODINIT_FUNC PyInit__msgwatch(void);
PyMODINIT_FUNC PyInit__msgwatch(void)
{
    return PyModuleDef_Init(&definition);
}
