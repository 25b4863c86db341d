# Finds TensorRT's headers and its runtime library: TensorRT_ROOT (a CMake or environment variable),
# then the system's folders (Debian packages libnvinfer-headers-dev and libnvinfer-dev, JetPack).
#
# Gives the target TensorRT::nvinfer, and TensorRT_INCLUDE_DIR and TensorRT_LIBRARY, which can also
# be set by hand: the headers and the library need not come from one place.

find_path(
    TensorRT_INCLUDE_DIR NvInferRuntime.h
    PATHS /usr/local/tensorrt /opt/tensorrt /usr/src/tensorrt
    PATH_SUFFIXES include include/${CMAKE_LIBRARY_ARCHITECTURE})
# The Python package tensorrt-libs has only the name with the version.
find_library(
    TensorRT_LIBRARY
    NAMES nvinfer libnvinfer.so.11 libnvinfer.so.10 libnvinfer.so.8
    PATHS /usr/local/tensorrt /opt/tensorrt
    PATH_SUFFIXES lib lib64 lib/${CMAKE_LIBRARY_ARCHITECTURE})
mark_as_advanced(TensorRT_INCLUDE_DIR TensorRT_LIBRARY)

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(
    TensorRT
    REQUIRED_VARS TensorRT_INCLUDE_DIR TensorRT_LIBRARY
    REASON_FAILURE_MESSAGE "give its place with -DTensorRT_ROOT=DIR")

if(TensorRT_FOUND AND NOT TARGET TensorRT::nvinfer)
    add_library(TensorRT::nvinfer UNKNOWN IMPORTED)
    set_target_properties(
        TensorRT::nvinfer PROPERTIES IMPORTED_LOCATION "${TensorRT_LIBRARY}"
                                     INTERFACE_INCLUDE_DIRECTORIES "${TensorRT_INCLUDE_DIR}")
endif()
