//! \file harness.h
//! Checks of the adapter over the fake ONNX Runtime, on either provider.
#pragma once

#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "common/problem.h"
#include "fake_ort.h"
#include "ort_api.h"

//! Failed checks so far.
extern int failures;

#define CHECK(condition)                                                      \
    do {                                                                      \
        if (!(condition)) {                                                   \
            ++failures;                                                       \
            std::printf("FAILED %s:%d %s\n", __FILE__, __LINE__, #condition); \
        }                                                                     \
    } while (false)

extern "C" OrtStatus* RegisterCustomOps(OrtSessionOptions* options, OrtApiBase const* base);

namespace harness {

//! Takes a status: its words, "" for none.
std::string words_of(OrtStatus* status);

//! The ops that a session with these options gets.
std::vector<vim_plugins::ort::CustomOp const*> registered_ops();

//! The registered op of a problem, for its element type.
vim_plugins::ort::CustomOp const& op_for(vim_tests::Spec const& spec);

//! A problem as a node: attributes, input values, and a place for the output.
struct NodeCase {
    OrtKernelInfo info;
    std::vector<OrtValue> inputs;
    OrtValue output;

    explicit NodeCase(vim_tests::Problem const& problem);

    OrtKernelContext context(std::size_t threads = 1);
    std::vector<double> result() const;
};

//! A kernel, as ONNX Runtime holds one.
class Kernel {
  public:
    Kernel(vim_plugins::ort::CustomOp const& op, OrtKernelInfo const& info);
    Kernel(Kernel const&) = delete;
    Kernel& operator=(Kernel const&) = delete;
    ~Kernel();

    std::string const& fault() const { return fault_; }  //!< why there is none
    std::string compute(OrtKernelContext& context) const;

  private:
    vim_plugins::ort::CustomOp const& op_;
    void* kernel_ = nullptr;
    std::string fault_;
};

//! Relative L2 distance of a problem's output to float64, run on this provider.
double distance(vim_tests::Problem const& problem, std::size_t threads);

//! Every op, type, and way to take dt, at a few sizes.
std::vector<vim_tests::Spec> specs();

//! Checks that hold for one provider only, with their names.
void check_provider();
char const* provider();
//! How many ops of detectors the provider has.
std::size_t region_ops();

}  // namespace harness
