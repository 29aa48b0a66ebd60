/* Trampolines in front of C functions of the interpreter.

   A built-in function is called through a pointer in its PyMethodDef. Replacing that pointer catches
   every caller, also those that imported the name before (`from time import time`) and types that
   allow no assignment (datetime.now). While no decision is being recorded or replayed a trampoline
   is one load, one branch and a jump. */
#ifndef SRDS_SHIMS_H
#define SRDS_SHIMS_H
#include <Python.h>

#define SRDS_SLOTS 32

typedef struct {
    PyMethodDef *method;
    PyCFunction original;   /* of whatever signature method->ml_flags says */
} srds_slot;

static srds_slot srds_slots[SRDS_SLOTS];
static int srds_watched = 0;    /* decisions being recorded or replayed at this moment */

/* Set by the Cython module: answers a call in place of the original. */
static PyObject *(*srds_intercept)(int slot, PyObject *self, PyObject *const *args,
                                   Py_ssize_t nargs, PyObject *kwnames) = NULL;

typedef PyObject *(*srds_fast)(PyObject *, PyObject *const *, Py_ssize_t);
typedef PyObject *(*srds_fast_keywords)(PyObject *, PyObject *const *, Py_ssize_t, PyObject *);

#define SRDS_FOR_EACH_SLOT(X) \
    X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12) X(13) X(14) X(15) \
    X(16) X(17) X(18) X(19) X(20) X(21) X(22) X(23) X(24) X(25) X(26) X(27) X(28) X(29) X(30) X(31)

#define SRDS_TRAMPOLINES(n) \
    static PyObject *srds_noargs_##n(PyObject *self, PyObject *none) { \
        if (!srds_watched) return srds_slots[n].original(self, none); \
        return srds_intercept(n, self, NULL, 0, NULL); } \
    static PyObject *srds_one_##n(PyObject *self, PyObject *arg) { \
        if (!srds_watched) return srds_slots[n].original(self, arg); \
        return srds_intercept(n, self, &arg, 1, NULL); } \
    static PyObject *srds_fast_##n(PyObject *self, PyObject *const *args, Py_ssize_t nargs) { \
        if (!srds_watched) return ((srds_fast)(void *)srds_slots[n].original)(self, args, nargs); \
        return srds_intercept(n, self, args, nargs, NULL); } \
    static PyObject *srds_fast_keywords_##n(PyObject *self, PyObject *const *args, \
                                            Py_ssize_t nargs, PyObject *kwnames) { \
        if (!srds_watched) \
            return ((srds_fast_keywords)(void *)srds_slots[n].original)(self, args, nargs, kwnames); \
        return srds_intercept(n, self, args, nargs, kwnames); } \
    static PyObject *srds_tuple_##n(PyObject *self, PyObject *args) { \
        if (!srds_watched) return srds_slots[n].original(self, args); \
        return srds_intercept(n, self, &PyTuple_GET_ITEM(args, 0), PyTuple_GET_SIZE(args), NULL); } \
    static PyObject *srds_tuple_keywords_##n(PyObject *self, PyObject *args, PyObject *kwargs) { \
        if (!srds_watched) \
            return ((PyCFunctionWithKeywords)(void *)srds_slots[n].original)(self, args, kwargs); \
        return srds_intercept_dict(n, self, args, kwargs); }

/* Keywords given as a dictionary, brought into the vector form. */
static PyObject *srds_intercept_dict(int slot, PyObject *self, PyObject *args, PyObject *kwargs) {
    Py_ssize_t nargs = PyTuple_GET_SIZE(args), nkw = kwargs ? PyDict_GET_SIZE(kwargs) : 0, i = 0, at = 0;
    PyObject *vector[8], *names = NULL, *name, *value, *result;
    if (nargs + nkw > 8) {
        PyErr_SetString(PyExc_TypeError, "too many arguments");
        return NULL;
    }
    for (; i < nargs; i++) vector[i] = PyTuple_GET_ITEM(args, i);
    if (nkw) {
        names = PyTuple_New(nkw);
        if (names == NULL) return NULL;
        for (i = 0; PyDict_Next(kwargs, &at, &name, &value); i++) {
            Py_INCREF(name);
            PyTuple_SET_ITEM(names, i, name);
            vector[nargs + i] = value;
        }
    }
    result = srds_intercept(slot, self, vector, nargs, names);
    Py_XDECREF(names);
    return result;
}

SRDS_FOR_EACH_SLOT(SRDS_TRAMPOLINES)

#define SRDS_ROW(n) { (PyCFunction)srds_noargs_##n, (PyCFunction)srds_one_##n, \
    (PyCFunction)(void *)srds_fast_##n, (PyCFunction)(void *)srds_fast_keywords_##n, \
    (PyCFunction)srds_tuple_##n, (PyCFunction)(void *)srds_tuple_keywords_##n },

static PyCFunction srds_trampolines[SRDS_SLOTS][6] = { SRDS_FOR_EACH_SLOT(SRDS_ROW) };

static int srds_signature(int flags) {
    switch (flags & (METH_NOARGS | METH_O | METH_VARARGS | METH_KEYWORDS | METH_FASTCALL)) {
    case METH_NOARGS: return 0;
    case METH_O: return 1;
    case METH_FASTCALL: return 2;
    case METH_FASTCALL | METH_KEYWORDS: return 3;
    case METH_VARARGS: return 4;
    case METH_VARARGS | METH_KEYWORDS: return 5;
    default: return -1;
    }
}

/* The method table entry behind a built-in function, a method or a class method of a C type. */
static PyMethodDef *srds_method_of(PyObject *callable) {
    if (PyCFunction_Check(callable)) return ((PyCFunctionObject *)callable)->m_ml;
    if (Py_IS_TYPE(callable, &PyMethodDescr_Type) || Py_IS_TYPE(callable, &PyClassMethodDescr_Type))
        return ((PyMethodDescrObject *)callable)->d_method;
    return NULL;
}

static int srds_patch(int slot, PyObject *callable) {
    PyMethodDef *method = srds_method_of(callable);
    int signature = method ? srds_signature(method->ml_flags) : -1;
    if (signature < 0) return -1;
    srds_slots[slot].method = method;
    srds_slots[slot].original = method->ml_meth;
    method->ml_meth = srds_trampolines[slot][signature];
    return 0;
}

static void srds_unpatch(int slot) {
    if (srds_slots[slot].method) {
        srds_slots[slot].method->ml_meth = srds_slots[slot].original;
        srds_slots[slot].method = NULL;
    }
}

/* What the caller would have got without us. */
static PyObject *srds_call_original(int slot, PyObject *self, PyObject *const *args,
                                    Py_ssize_t nargs, PyObject *kwnames) {
    PyCFunction f = srds_slots[slot].original;
    PyObject *tuple, *dict = NULL, *result;
    Py_ssize_t i;
    switch (srds_signature(srds_slots[slot].method->ml_flags)) {
    case 0: return f(self, NULL);
    case 1: return f(self, args[0]);
    case 2: return ((srds_fast)(void *)f)(self, args, nargs);
    case 3: return ((srds_fast_keywords)(void *)f)(self, args, nargs, kwnames);
    }
    tuple = PyTuple_New(nargs);
    if (tuple == NULL) return NULL;
    for (i = 0; i < nargs; i++) {
        Py_INCREF(args[i]);
        PyTuple_SET_ITEM(tuple, i, args[i]);
    }
    if (kwnames != NULL && PyTuple_GET_SIZE(kwnames)) {
        dict = PyDict_New();
        for (i = 0; dict != NULL && i < PyTuple_GET_SIZE(kwnames); i++)
            if (PyDict_SetItem(dict, PyTuple_GET_ITEM(kwnames, i), args[nargs + i]) < 0) Py_CLEAR(dict);
        if (dict == NULL) {
            Py_DECREF(tuple);
            return NULL;
        }
    }
    result = srds_signature(srds_slots[slot].method->ml_flags) == 4
        ? f(self, tuple) : ((PyCFunctionWithKeywords)(void *)f)(self, tuple, dict);
    Py_DECREF(tuple);
    Py_XDECREF(dict);
    return result;
}
#endif
