# Programs that drive the adapter of libvim_ort_cpu.so through a fake ONNX Runtime, under sanitizers;
# the kernels have checks of their own. Nothing builds them by itself: vim_ort_cpu_checks_address and
# vim_ort_cpu_checks_thread. Half of problem.cpp launches kernels on a GPU: what is not called is left
# out with what it calls.
set(checks "${CMAKE_CURRENT_LIST_DIR}")
add_library(vim_checks_problem OBJECT EXCLUDE_FROM_ALL "${root}/tests/common/problem.cpp")
target_include_directories(vim_checks_problem PRIVATE "${root}/include" "${root}/tests/host/shim")
target_compile_features(vim_checks_problem PRIVATE cxx_std_17)
target_compile_options(vim_checks_problem PRIVATE -ffunction-sections)
set(checks_sources)
foreach(name IN ITEMS checks checks_cpu checks_regions fake_ort harness)
    list(APPEND checks_sources "${checks}/${name}.cpp")
endforeach()
# What is undefined in the checks costs compile time and shows nothing of the adapter.
set_source_files_properties(${checks_sources} PROPERTIES COMPILE_OPTIONS
                                                         -fno-sanitize=undefined)
get_target_property(library_sources vim_ort_cpu SOURCES)
set(sanitizers_address address,undefined)
set(sanitizers_thread thread)
foreach(kind IN ITEMS address thread)
    set(program vim_ort_cpu_checks_${kind})
    add_executable(
        ${program} EXCLUDE_FROM_ALL
        ${library_sources} $<TARGET_OBJECTS:vim_checks_problem> ${checks_sources})
    target_include_directories(${program} PRIVATE "${root}/onnxruntime" "${root}/tests")
    target_compile_definitions(${program} PRIVATE VIM_PLUGINS_VERSION="0"
                                                  VIM_PLUGINS_KERNEL_HASH="checks")
    target_link_libraries(${program} PRIVATE vim_cpu_options)
    # Optimised, it takes four times as long to compile. The adapter is one unit.
    target_compile_options(${program} PRIVATE -O0 -g1 -fsanitize=${sanitizers_${kind}}
                                              -fno-sanitize-recover=all)
    set_target_properties(${program} PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 0)
    target_link_options(${program} PRIVATE -fsanitize=${sanitizers_${kind}} -Wl,--gc-sections)
endforeach()
