//! \file registration.cpp
//! RegisterCustomOps: what ONNX Runtime calls when a session's options name the library.
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "calls.h"
#include "device.h"
#include "native_op.h"
#include "threads.h"
#include "vim_plugins/contract.h"

namespace vim_plugins::ort {
namespace {

//! Session option that says which library's ops a session has: ONNX Runtime takes a domain once.
constexpr char const* kLibraryKey = "vim_deploy.native_ops";

//! The ops as one ONNX Runtime knows them. Sessions refer to all of it.
struct OpSet {
    OrtApi const* api;
    std::string release;
    std::int32_t threads;
    std::vector<std::unique_ptr<NativeOp>> ops;
    Domain domain;
};

std::string option(OrtApi const* api, OrtSessionOptions const* options, char const* key) {
    int there = 0;
    check(api, HasSessionConfigEntry(api)(options, key, &there));
    if (there == 0) {
        return {};
    }
    std::size_t size = 0;  // with the terminating zero
    check(api, GetSessionConfigEntry(api)(options, key, nullptr, &size));
    std::string value(size, '\0');
    check(api, GetSessionConfigEntry(api)(options, key, value.data(), &size));
    value.resize(size > 0 ? size - 1 : 0);
    return value;
}

// One set for each ONNX Runtime in the process (a process may hold several) and number of threads,
// made once and never taken down: sessions outlive the options they are made from, and at the end
// of a process nobody knows which library goes first. The library stays loaded for the same reason
// (see the link options).
OpSet const& ops_for(OrtApi const* api, char const* release, std::int32_t threads) {
    static std::mutex mutex;
    static auto& sets = *new std::vector<std::unique_ptr<OpSet>>;
    std::lock_guard<std::mutex> const lock(mutex);
    for (auto const& set : sets) {
        if (set->api == api && set->release == release && set->threads == threads) {
            return *set;
        }
    }
    OrtCustomOpDomain* raw = nullptr;
    check(api, CreateCustomOpDomain(api)(kDomain, &raw));
    Domain domain(raw, {api});
    auto set = std::make_unique<OpSet>(
        OpSet{api, release, threads, make_ops(api, threads), std::move(domain)});
    for (auto const& op : set->ops) {
        check(api, CustomOpDomain_Add(api)(raw, handle(*op)));
    }
    sets.push_back(std::move(set));
    return *sets.back();
}

void register_ops(OrtApi const* api, char const* release, OrtSessionOptions* options) {
    std::string const own = std::string("vim_ort_") + provider_name();
    std::string const registered = option(api, options, kLibraryKey);
    if (registered == own) {
        return;
    }
    if (!registered.empty()) {
        throw std::invalid_argument("the session has the ops of " + registered +
                                    " already; ONNX Runtime takes the domain " + kDomain +
                                    " from one library: leave " + registered + " or " + own +
                                    " out");
    }
    std::string const text = option(api, options, kThreadsKey);
    std::int32_t const threads = text.empty() ? available_cpus() : parse_threads(text);
    check(api, AddCustomOpDomain(api)(options, ops_for(api, release, threads).domain.get()));
    check(api, AddSessionConfigEntry(api)(options, kLibraryKey, own.c_str()));
}

}  // namespace
}  // namespace vim_plugins::ort

extern "C" __attribute__((visibility("default"))) OrtStatus* RegisterCustomOps(
    OrtSessionOptions* options, OrtApiBase const* raw) {
    namespace ort = vim_plugins::ort;
    auto const* base = reinterpret_cast<ort::ApiBase const*>(raw);
    OrtApi const* api = base->GetApi(ort::needed_api());
    if (api == nullptr) {
        return nullptr;  // an older ONNX Runtime inlines the functions of the file
    }
    return ort::guarded(api, [&] { ort::register_ops(api, base->GetVersionString(), options); });
}
