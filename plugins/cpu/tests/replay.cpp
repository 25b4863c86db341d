//! Runs an op on inputs from a file: the kernels on a processor that no Python of ours runs on,
//! such as an emulated one.
//!
//!     replay THREADS < CASES > OUTPUTS
//!
//! A case is: u32 op (its place in VIM_PLUGINS_ALL_OPS), u32 count of inputs, u32 bytes of the
//! parameters, the parameters; of each input u32 bytes (0 for a null pointer) and the bytes; u32
//! bytes of the output. Pointers stand first in a struct of parameters, inputs before the output.
//! The outputs follow each other; each was filled with NaN before. The instruction set goes to
//! standard error.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "thread_executor.h"

namespace {

namespace cpu = vim_plugins::cpu;
using Bytes = std::vector<unsigned char>;

bool read_exactly(void* target, std::size_t size) {
    return std::fread(target, 1, size, stdin) == size;
}

Bytes read_bytes(std::uint32_t size) {
    Bytes bytes(size);
    if (!read_exactly(bytes.data(), size)) {
        std::exit(2);
    }
    return bytes;
}

std::uint32_t read_number() {
    std::uint32_t number = 0;
    if (!read_exactly(&number, sizeof number)) {
        std::exit(2);
    }
    return number;
}

template <typename Params>
void run(const Bytes& stored, std::int32_t threads) {
    Params params;
    if (stored.size() != sizeof params) {
        std::exit(3);
    }
    std::memcpy(static_cast<void*>(&params), stored.data(), sizeof params);
    const std::size_t bytes = cpu::workspace_bytes(params, threads);
    void* const workspace =
        std::aligned_alloc(cpu::kWorkspaceAlignment,
                           (bytes / cpu::kWorkspaceAlignment + 1) * cpu::kWorkspaceAlignment);
    if (workspace == nullptr) {
        std::exit(4);
    }
    cpu::run(params, workspace, vim_tests::thread_executor(threads));
    std::free(workspace);
}

}  // namespace

int main(int count, char** words) {
    if (count != 2) {
        return 2;
    }
    const std::int32_t threads = std::atoi(words[1]);
    std::fprintf(stderr, "%s\n", cpu::instruction_set());
    for (std::uint32_t op = 0; read_exactly(&op, sizeof op);) {
        const std::uint32_t inputs = read_number();
        Bytes params = read_bytes(read_number());
        std::vector<Bytes> held;
        for (std::uint32_t i = 0; i <= inputs; ++i) {
            const std::uint32_t size = read_number();
            held.push_back(i < inputs ? read_bytes(size) : Bytes(size, 0xFF));
            const void* const place = size == 0 ? nullptr : held.back().data();
            std::memcpy(params.data() + i * sizeof place, &place, sizeof place);
        }
        std::uint32_t at = 0;
#define VIM_REPLAY(Name, c_name)                         \
    if (op == at++) {                                    \
        run<vim_plugins::Name##Params>(params, threads); \
    }
        VIM_PLUGINS_ALL_OPS(VIM_REPLAY)
#undef VIM_REPLAY
        std::fwrite(held.back().data(), 1, held.back().size(), stdout);
    }
    return 0;
}
