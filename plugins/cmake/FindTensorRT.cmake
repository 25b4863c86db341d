# Finds TensorRT's headers. Nothing links to TensorRT: a plugin library is loaded by it.
#
# Looked at in this order:
#   1. TensorRT_ROOT, a CMake or environment variable: a TensorRT installation, or its include folder
#   2. the system's include folders (the Debian packages libnvinfer-headers-dev, JetPack)
#   3. the Python package kernel-lens, which carries the headers of TensorRT 10
#
# Gives the target TensorRT::Headers and TensorRT_INCLUDE_DIR, TensorRT_VERSION,
# TensorRT_VERSION_MAJOR.

set(_trt_python_hint "")
find_program(TensorRT_PYTHON NAMES python3 python)
mark_as_advanced(TensorRT_PYTHON)
if(TensorRT_PYTHON)
    execute_process(
        COMMAND "${TensorRT_PYTHON}" -c
                "import importlib.util as u; s = u.find_spec('kernel_lens'); print(s.submodule_search_locations[0] if s else '')"
        OUTPUT_VARIABLE _trt_wheel
        OUTPUT_STRIP_TRAILING_WHITESPACE
        ERROR_QUIET)
    if(_trt_wheel)
        set(_trt_python_hint "${_trt_wheel}/include/tensorrt")
    endif()
endif()

find_path(
    TensorRT_INCLUDE_DIR NvInferRuntime.h
    HINTS "${TensorRT_ROOT}" ENV TensorRT_ROOT
    PATHS /usr/local/tensorrt /opt/tensorrt /usr/src/tensorrt "${_trt_python_hint}"
    PATH_SUFFIXES include include/${CMAKE_LIBRARY_ARCHITECTURE})

set(TensorRT_VERSION "")
if(TensorRT_INCLUDE_DIR AND EXISTS "${TensorRT_INCLUDE_DIR}/NvInferVersion.h")
    file(READ "${TensorRT_INCLUDE_DIR}/NvInferVersion.h" _trt_text)
    # Up to 10.x a number follows the name; later the name of another macro that ends in
    # _ENTERPRISE and holds the number.
    foreach(_trt_part MAJOR MINOR PATCH)
        set(_trt_pattern "#define (NV_TENSORRT_${_trt_part}|TRT_${_trt_part}_ENTERPRISE) ([0-9]+)")
        if(_trt_text MATCHES "${_trt_pattern}")
            set(TensorRT_VERSION_${_trt_part} ${CMAKE_MATCH_2})
        else()
            set(TensorRT_VERSION_${_trt_part} 0)
        endif()
    endforeach()
    set(TensorRT_VERSION
        "${TensorRT_VERSION_MAJOR}.${TensorRT_VERSION_MINOR}.${TensorRT_VERSION_PATCH}")
endif()

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(
    TensorRT
    REQUIRED_VARS TensorRT_INCLUDE_DIR
    VERSION_VAR TensorRT_VERSION
    REASON_FAILURE_MESSAGE
        "give its place with -DTensorRT_ROOT=DIR, or take the headers from PyPI: pip install --no-deps kernel-lens==2.0.1")
mark_as_advanced(TensorRT_INCLUDE_DIR)

if(TensorRT_FOUND AND NOT TARGET TensorRT::Headers)
    add_library(TensorRT::Headers INTERFACE IMPORTED)
    set_target_properties(TensorRT::Headers PROPERTIES INTERFACE_INCLUDE_DIRECTORIES
                                                       "${TensorRT_INCLUDE_DIR}")
endif()
