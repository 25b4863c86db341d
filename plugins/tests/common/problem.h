//! Random problems for the three ops, and their answers in float64.
//!
//! A Problem holds every tensor as fp32 values that the element type can represent, so that the
//! reference sees exactly what the kernel reads. The reference is a plain loop written from the
//! contract; it shares no code with the kernels.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "vim_plugins/params.h"

namespace vim_tests {

using vim_plugins::DataType;
using vim_plugins::Tactic;

enum class Op { kScan, kConv, kBiScan };

//! What to make; everything not said takes a value that Vim would use.
struct Spec {
    Op op = Op::kScan;
    DataType type = DataType::kFloat32;
    int batch = 1;
    int length = 1;
    int channels = 64;
    int states = 16;
    bool reverse = false;
    bool gate = true;
    bool softplus = true;
    int rank = 0;  //!< of dt_w; 0: dt is given per token
    //! Tokens that a state remembers about (1 / (step |A|)), with u, B, C and the skip positive, so
    //! that errors of one sign add up; 0: as Mamba's initialisation has it, and of both signs.
    int memory = 0;
    int width = 4;
    int margin = 0;  //!< unused columns before, between and after the used ones
    int before = 0;  //!< unused columns before the B/C row's: where a projection's rank is
    float scale = 1.0F;
};

struct Problem {
    Spec spec;
    int bc_columns = 0;
    int z_columns = 0;
    int b_off = 0;
    int c_off = 0;
    int dt_off = 0;
    int z_off = 0;
    std::vector<float> u, dt, A, bc, skip, bias, z, w;
};

Problem make_problem(const Spec& spec, std::uint32_t seed);

//! The op's output in float64, in the order of the output tensor.
std::vector<double> reference(const Problem& problem);

//! What a launch needs of the memory its tensors live in.
class Memory {
  public:
    virtual ~Memory() = default;
    //! A tensor with these bytes.
    virtual void* place(const void* data, std::size_t bytes) = 0;
    //! A tensor of NaNs.
    virtual void* blank(std::size_t bytes) = 0;
    virtual void fetch(void* to, const void* from, std::size_t bytes) = 0;
};

//! A problem's tensors in some memory, ready to launch with any of its tactics.
class Bound {
  public:
    Bound(const Problem& problem, Memory& memory);
    //! Calls f with the parameters of the problem's op.
    template <typename F>
    auto visit(F&& f) const {
        switch (problem_.spec.op) {
            case Op::kScan:
                return f(scan_);
            case Op::kConv:
                return f(conv_);
            default:
                return f(bi_);
        }
    }
    // The next four are of the CUDA kernels, and in launches.cpp.
    const char* validate() const;
    //! Every tactic that runs this shape, worthwhile or not.
    std::vector<Tactic> tactics() const;
    //! Bytes of scratch the tactic wants.
    std::size_t workspace_bytes(Tactic tactic) const;
    //! Enqueues; the CUDA error code.
    int launch(Tactic tactic, void* workspace, void* stream) const;
    //! The output as double.
    std::vector<double> output() const;
    void* output_pointer() const { return output_; }
    std::size_t output_bytes() const;

  private:
    const Problem& problem_;
    Memory& memory_;
    void* output_ = nullptr;
    std::size_t output_elements_ = 0;
    vim_plugins::SelectiveScanParams scan_;
    vim_plugins::BiCausalConvParams conv_;
    vim_plugins::BiSelectiveScanParams bi_;
};

//! |got - want| / |want| in the 2-norm; NaN when an element is.
double relative_l2(const std::vector<double>& got, const std::vector<double>& want);

//! What relative_l2 may be; vim_deploy/plugin/check.py says where the numbers come from, and a test
//! compares them. The arithmetic is fp32 for every type:
inline constexpr double kArithmetic = 1e-6;
//! the same on a GPU;
inline constexpr double kGpuArithmetic = 1e-5;
//! what a power of two just below 1 may be off by there, at every token to the same side.
inline constexpr double kGpuPowerError = 0x1p-23;

//! kArithmetic, and the unit roundoff of T for its rounding of the output. It holds with a memory
//! of up to 500 tokens, too: a state is rounded by up to 2^-24 of it at every token, and while the
//! steps differ these errors have both signs, so that sqrt(500 / 2) of them, 9.4e-7, are left. A
//! power that is too large or too small by the same at every token is not forgiven.
double tolerance(DataType type);

//! The same on a GPU.
double gpu_tolerance(const Spec& spec);

std::string describe(const Spec& spec);
std::string name_of(Tactic tactic);
std::string name_of(DataType type);

}  // namespace vim_tests
