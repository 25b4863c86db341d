# What the libraries of native ops for ONNX Runtime have in common, for CPUs and for GPUs.
#
#   vim_add_native_ops(TARGET PROVIDER cpu|cuda KERNELS FILES... HASHED FILES...)
#
# adds libTARGET.so: the adapter for one execution provider over KERNELS, with a hash of the sources
# HASHED in its description. The target has the version of the project.

include(CheckLinkerFlag)

set(vim_native_ops_root "${CMAKE_CURRENT_LIST_DIR}/../..")

# Adds a linker option where the linker has it.
function(vim_link_if_known target name flag)
    check_linker_flag(CXX "${flag}" vim_linker_has_${name})
    if(vim_linker_has_${name})
        target_link_options(${target} PRIVATE "${flag}")
    endif()
endfunction()

# Sets `result` to 16 hex digits of the files' contents, anew whenever one of them changes.
function(vim_hash_files result)
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${ARGN})
    set(hashes "")
    foreach(file IN LISTS ARGN)
        file(SHA256 "${file}" hash)
        string(APPEND hashes "${hash}")
    endforeach()
    string(SHA256 hash "${hashes}")
    string(SUBSTRING "${hash}" 0 16 hash)
    set(${result} "${hash}" PARENT_SCOPE)
endfunction()

function(vim_add_native_ops target)
    cmake_parse_arguments(PARSE_ARGV 1 arg "" "PROVIDER" "KERNELS;HASHED")
    set(root "${vim_native_ops_root}")
    set(adapter "${root}/onnxruntime")
    vim_hash_files(kernel_hash ${arg_HASHED})
    add_library(
        ${target} SHARED
        ${arg_KERNELS}
        "${root}/adapters/op_model.cpp"
        "${adapter}/${arg_PROVIDER}_device.cpp"
        "${adapter}/inference.cpp"
        "${adapter}/library_info.cpp"
        "${adapter}/native_op.cpp"
        "${adapter}/node.cpp"
        "${adapter}/registration.cpp"
        "${adapter}/threads.cpp")
    target_include_directories(${target} PRIVATE "${root}" "${root}/include" "${adapter}")
    string(TOUPPER "${arg_PROVIDER}" provider)
    target_compile_definitions(
        ${target} PRIVATE VIM_ORT_PROVIDER_${provider} VIM_PLUGINS_VERSION="${PROJECT_VERSION}"
                          VIM_PLUGINS_KERNEL_HASH="${kernel_hash}")
    set(map "${adapter}/exports.map")
    target_link_options(${target} PRIVATE "-Wl,--version-script=${map}")
    vim_link_if_known(${target} no_undefined "-Wl,--no-undefined")
    vim_link_if_known(${target} exclude_libs "-Wl,--exclude-libs,ALL")
    # Sessions refer to the ops, so the library must not go before them; who unloads what first is
    # not for us to know.
    vim_link_if_known(${target} nodelete "-Wl,-z,nodelete")
    # A host may bring an older C++ library than the compiler's.
    vim_link_if_known(${target} static_libstdcxx "-static-libstdc++")
    vim_link_if_known(${target} static_libgcc "-static-libgcc")
    # What nobody uses of them would ask for newer functions of the C library.
    vim_link_if_known(${target} gc_sections "-Wl,--gc-sections")
    set_target_properties(
        ${target}
        PROPERTIES CXX_EXTENSIONS OFF
                   CXX_VISIBILITY_PRESET hidden
                   LINK_DEPENDS "${map}"
                   POSITION_INDEPENDENT_CODE ON
                   VISIBILITY_INLINES_HIDDEN ON)
    message(STATUS "${target}: provider ${arg_PROVIDER}, kernels ${kernel_hash}")
endfunction()
