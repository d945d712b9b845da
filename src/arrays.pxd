"""NumPy arrays as native code sees them."""

cimport numpy as cnp

from call cimport Matrix


cdef inline void *address(array) noexcept:
    return NULL if array is None else cnp.PyArray_DATA(<cnp.ndarray>array)


cdef inline Matrix matrix_of(array) noexcept:
    """An array (K, M) in C or Fortran order; its values are NULL for None."""
    cdef Matrix matrix
    matrix.values, matrix.row_step, matrix.column_step = NULL, 0, 1
    if array is not None:
        matrix.values = address(array)
        matrix.row_step, matrix.column_step = cnp.PyArray_DIM(<cnp.ndarray>array, 1), 1
        if not cnp.PyArray_CHKFLAGS(<cnp.ndarray>array, cnp.NPY_ARRAY_C_CONTIGUOUS):
            matrix.row_step, matrix.column_step = 1, cnp.PyArray_DIM(<cnp.ndarray>array, 0)
    return matrix


cdef inline Py_ssize_t length(array, int axis) noexcept:
    return cnp.PyArray_DIM(<cnp.ndarray>array, axis)


cdef inline bint is_double(array) noexcept:
    return cnp.PyArray_TYPE(<cnp.ndarray>array) == cnp.NPY_DOUBLE


cdef inline bint is_plain(array, int number, int axes, Py_ssize_t first, Py_ssize_t second) noexcept:
    """Whether it is a C-contiguous array of that dtype and number of axes whose last two axes have these lengths."""
    return (cnp.PyArray_CheckExact(array) and cnp.PyArray_TYPE(<cnp.ndarray>array) == number
            and cnp.PyArray_NDIM(<cnp.ndarray>array) == axes
            and cnp.PyArray_CHKFLAGS(<cnp.ndarray>array, cnp.NPY_ARRAY_CARRAY_RO)
            and cnp.PyArray_ISNOTSWAPPED(<cnp.ndarray>array)
            and cnp.PyArray_DIM(<cnp.ndarray>array, axes - 1) == second
            and (axes == 1 or cnp.PyArray_DIM(<cnp.ndarray>array, axes - 2) == first))


cdef inline bint is_matrix(array, int number, Py_ssize_t rows, Py_ssize_t columns) noexcept:
    """Whether it is an array (rows, columns) of that dtype, contiguous in C or Fortran order."""
    return (cnp.PyArray_CheckExact(array) and cnp.PyArray_TYPE(<cnp.ndarray>array) == number
            and cnp.PyArray_NDIM(<cnp.ndarray>array) == 2 and cnp.PyArray_ISNOTSWAPPED(<cnp.ndarray>array)
            and (cnp.PyArray_CHKFLAGS(<cnp.ndarray>array, cnp.NPY_ARRAY_CARRAY_RO)
                 or cnp.PyArray_CHKFLAGS(<cnp.ndarray>array, cnp.NPY_ARRAY_FARRAY_RO))
            and cnp.PyArray_DIM(<cnp.ndarray>array, 0) == rows
            and cnp.PyArray_DIM(<cnp.ndarray>array, 1) == columns)
