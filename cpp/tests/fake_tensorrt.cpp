//! \file fake_tensorrt.cpp
//! A libnvinfer of our own: the runtime, engine and context that the library uses, behind the
//! classes of TensorRT's headers.
#include <NvInferRuntime.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <utility>

#include "fake_bases.h"
#include "fake_plan.h"
#include "fakes.h"

namespace {

using namespace nvinfer1;
using namespace fake_plan;

std::atomic<bool> plugins_registered{false};

struct Shared {
    Plan plan;
    ILogger* logger = nullptr;
    std::atomic<int> contexts{0};
    std::atomic<int> changing_contexts{0};

    bool refuses(char const* step) const {
        auto const found = plan.fail.find(step);
        if (found != plan.fail.end()) {
            logger->log(ILogger::Severity::kERROR, found->second.c_str() + 1);
        }
        return found != plan.fail.end();
    }
};

// TensorRT's contexts of one engine are not made or given back by two threads at once. It takes a
// moment, so that two that try do meet.
class OneAtATime {
  public:
    explicit OneAtATime(std::atomic<int>& inside) : inside_(inside) {
        if (++inside_ != 1) {
            fake_fault("two threads make or give back contexts of one engine");
        }
        std::this_thread::sleep_for(std::chrono::microseconds(200));
    }
    OneAtATime(OneAtATime const&) = delete;
    OneAtATime& operator=(OneAtATime const&) = delete;
    ~OneAtATime() { --inside_; }

  private:
    std::atomic<int>& inside_;
};

class FakeContext : public VExecutionContextBase, public IExecutionContext {
  public:
    explicit FakeContext(Shared& shared) : shared_(shared) {
        mImpl = this;
        ++shared_.contexts;
    }
    ~FakeContext() noexcept override {
        OneAtATime const guard(shared_.changing_contexts);
        --shared_.contexts;
    }

    void setDeviceMemoryV2(void* memory, std::int64_t size) noexcept override {
        scratch_ = memory;
        scratch_bytes_ = size;
    }
    bool setOptimizationProfileAsync(std::int32_t index, cudaStream_t stream) noexcept override {
        profile_ = index;
        fake_cuda_enqueue(stream, [] {});
        return index < static_cast<std::int32_t>(shared_.plan.profiles.size());
    }
    bool setInputShape(char const* name, Dims const& dims) noexcept override {
        if (std::string(name) == "size") {
            *size_dims_ = dims;
            return tensor(name) != nullptr;
        }
        auto const& range = shared_.plan.profiles[static_cast<std::size_t>(profile_)];
        if (tensor(name) == nullptr || !inside(dims, range)) {
            shared_.logger->log(ILogger::Severity::kERROR,
                                "does not satisfy any optimization profiles");
            return false;
        }
        *dims_ = dims;
        return true;
    }
    Dims getTensorShape(char const* name) const noexcept override {
        Io const* io = tensor(name);
        if (io->is_input) {
            return io->name == "size" ? *size_dims_ : *dims_;
        }
        return with_batch(io->dims);
    }
    bool setTensorAddress(char const* name, void* data) noexcept override {
        addresses_[name] = data;
        return tensor(name) != nullptr;
    }
    bool enqueueV3(cudaStream_t stream) noexcept override {
        bool const capturing = fake_cuda_is_capturing(stream);
        shared_.logger->log(ILogger::Severity::kVERBOSE, "enqueued");
        if (shared_.refuses("enqueue") || (capturing && shared_.refuses("capture"))) {
            return false;
        }
        Run run;
        for (Io const& io : shared_.plan.tensors) {
            Io actual = io;
            actual.dims = getTensorShape(io.name.c_str());
            auto const bytes = static_cast<std::size_t>(volume(actual.dims)) * width_of(io.type);
            if (dims_->nbDims == 0 || addresses_.count(io.name) == 0 ||
                !fake_cuda_is_device(addresses_[io.name], bytes)) {
                fake_fault("a run without a shape, or with a buffer that is too small");
                return false;
            }
            if (io.name == "size") {
                run.has_sizes = true;
                if (size_dims_->nbDims != 2 || size_dims_->d[0] != dims_->d[0]) {
                    fake_fault("a run without the shape of its sizes");
                    return false;
                }
            } else if (io.is_input) {
                run.input = actual;
            } else {
                run.outputs.push_back(actual);
            }
        }
        auto const wanted = static_cast<std::size_t>(shared_.plan.scratch);
        if (wanted > 0 &&
            (scratch_bytes_ < shared_.plan.scratch || !fake_cuda_is_device(scratch_, wanted))) {
            fake_fault("a run without its working memory");
            return false;
        }
        std::string const shape(reinterpret_cast<char const*>(dims_.get()), sizeof(Dims));
        if (capturing && warm_.count(shape) == 0) {
            fake_fault("a capture of a shape that was not run before");
        }
        warm_.insert(shape);
        run.addresses = addresses_;
        run.current = dims_;
        run.scratch = scratch_;
        run.scratch_bytes = shared_.plan.scratch;
        run.profile = profile_;
        run.captured = capturing;
        fake_cuda_enqueue(stream, run);
        return true;
    }

  private:
    Io const* tensor(std::string const& name) const {
        for (Io const& io : shared_.plan.tensors) {
            if (io.name == name) {
                return &io;
            }
        }
        return nullptr;
    }
    Dims with_batch(Dims dims) const {
        dims.d[0] = dims.d[0] < 0 ? dims_->d[0] : dims.d[0];
        return dims;
    }

    Shared& shared_;
    void* scratch_ = nullptr;
    std::int64_t scratch_bytes_ = 0;
    std::int32_t profile_ = 0;
    std::shared_ptr<Dims> dims_ = std::make_shared<Dims>();
    std::shared_ptr<Dims> size_dims_ = std::make_shared<Dims>();
    std::map<std::string, void*> addresses_;
    std::set<std::string> warm_;
};

class FakeEngine : public VCudaEngineBase, public ICudaEngine {
  public:
    FakeEngine(Plan plan, ILogger& logger, std::atomic<int>& engines) : engines_(engines) {
        mImpl = this;
        shared_.plan = std::move(plan);
        shared_.logger = &logger;
        ++engines_;
    }
    ~FakeEngine() noexcept override {
        if (shared_.contexts != 0) {
            fake_fault("an engine goes before its contexts");
        }
        --engines_;
    }

    IExecutionContext* createExecutionContext(
        ExecutionContextAllocationStrategy strategy) noexcept override {
        if (strategy != ExecutionContextAllocationStrategy::kUSER_MANAGED) {
            fake_fault("a context with memory of its own");
        }
        OneAtATime const guard(shared_.changing_contexts);
        return shared_.refuses("context") ? nullptr : new FakeContext(shared_);
    }
    std::int64_t getDeviceMemorySizeV2() const noexcept override { return shared_.plan.scratch; }
    std::int32_t getNbOptimizationProfiles() const noexcept override {
        return static_cast<std::int32_t>(shared_.plan.profiles.size());
    }
    Dims getProfileShape(char const* name, std::int32_t index,
                         OptProfileSelector which) const noexcept override {
        auto const& profile = shared_.plan.profiles[static_cast<std::size_t>(index)];
        Dims const& dims = profile[static_cast<std::size_t>(which)];
        return std::string(name) == "size" ? sizes_for(dims) : dims;
    }
    std::int32_t getNbIOTensors() const noexcept override {
        return static_cast<std::int32_t>(shared_.plan.tensors.size());
    }
    char const* getIOTensorName(std::int32_t index) const noexcept override {
        return shared_.plan.tensors[static_cast<std::size_t>(index)].name.c_str();
    }
    Dims getTensorShape(char const* name) const noexcept override { return io(name).dims; }
    DataType getTensorDataType(char const* name) const noexcept override { return io(name).type; }
    TensorLocation getTensorLocation(char const*) const noexcept override {
        return TensorLocation::kDEVICE;
    }
    TensorFormat getTensorFormat(char const*) const noexcept override {
        return TensorFormat::kLINEAR;
    }
    TensorIOMode getTensorIOMode(char const* name) const noexcept override {
        return io(name).is_input ? TensorIOMode::kINPUT : TensorIOMode::kOUTPUT;
    }

  private:
    Io const& io(std::string const& name) const {
        for (Io const& entry : shared_.plan.tensors) {
            if (entry.name == name) {
                return entry;
            }
        }
        std::abort();
    }

    Shared shared_;
    std::atomic<int>& engines_;
};

class FakeRuntime : public VRuntimeBase, public IRuntime {
  public:
    explicit FakeRuntime(ILogger& logger) : logger_(logger) { mImpl = this; }
    ~FakeRuntime() noexcept override {
        if (engines_ != 0) {
            fake_fault("a runtime goes before its engines");
        }
    }

    ICudaEngine* deserializeCudaEngine(void const* blob, std::size_t size) noexcept override {
        auto const* text = static_cast<char const*>(blob);
        Plan plan = parse_plan({text + kHeaderBytes, size - kHeaderBytes});
        if (plan.fail.count("deserialise") != 0) {
            logger_.log(ILogger::Severity::kERROR, plan.fail["deserialise"].c_str() + 1);
            return nullptr;
        }
        if (plan.embedded && !code_allowed_) {
            logger_.log(ILogger::Severity::kERROR,
                        "Cannot deserialize engine with lean runtime since "
                        "IRuntime::getEngineHostCodeAllowed() is false.");
            return nullptr;
        }
        if (plan.plugins && !plugins_registered) {
            logger_.log(ILogger::Severity::kERROR,
                        "Cannot deserialize plugin since corresponding IPluginCreatorInterface "
                        "not found in Plugin Registry");
            return nullptr;
        }
        logger_.log(ILogger::Severity::kVERBOSE, "deserialised");
        return new FakeEngine(std::move(plan), logger_, engines_);
    }
    void setEngineHostCodeAllowed(bool allowed) noexcept override { code_allowed_ = allowed; }
    ICudaEngine* deserializeCudaEngine(IStreamReader&) noexcept override { std::abort(); }

  private:
    ILogger& logger_;
    bool code_allowed_ = false;
    std::atomic<int> engines_{0};
};

}  // namespace

extern "C" void* createInferRuntime_INTERNAL(void* logger, std::int32_t) noexcept {
    if (std::getenv("FAKE_TENSORRT_NO_CUDA") != nullptr) {
        static_cast<ILogger*>(logger)->log(
            ILogger::Severity::kERROR, "createInferRuntime: CUDA initialization failure");
        // What lean runtimes of 10.15 to 11.4 give then: neither null nor a runtime.
        return reinterpret_cast<void*>(std::uintptr_t{0x228});
    }
    return static_cast<IRuntime*>(new FakeRuntime(*static_cast<ILogger*>(logger)));
}

extern "C" std::int32_t getInferLibVersion() noexcept {
    char const* text = std::getenv("FAKE_TENSORRT_VERSION");
    return text == nullptr ? NV_TENSORRT_VERSION : std::atoi(text);
}

extern "C" void fake_register_plugins() {
    plugins_registered = true;
}
