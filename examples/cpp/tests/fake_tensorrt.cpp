//! \file fake_tensorrt.cpp
//! A libnvinfer of our own: the runtime, engine and context that the library uses, behind the
//! classes of TensorRT's headers. A plan is a header of 36 bytes and lines such as
//!
//!     input image float32 -1x1x32x32
//!     output logits float32 -1x10
//!     profile 1x1x32x32 2x1x32x32 4x1x32x32
//!     scratch 4096
//!     plugins                      (needs the fake plugin library)
//!     embedded                     (carries code that must be allowed)
//!     fail deserialise TEXT        (or context, enqueue, capture: refuse, with TEXT in the log)
#include <NvInferRuntime.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "fake_bases.h"
#include "fakes.h"

namespace {

using namespace nvinfer1;

constexpr std::size_t kHeaderBytes = 36;

std::atomic<bool> plugins_registered{false};
std::atomic<std::int32_t> last_profile{-1};
std::atomic<std::int64_t> runs{0};

struct Io {
    std::string name;
    DataType type = DataType::kFLOAT;
    Dims dims{};
    bool is_input = false;
};

struct Plan {
    std::vector<Io> tensors;
    std::vector<std::vector<Dims>> profiles;
    std::int64_t scratch = 0;
    bool plugins = false;
    bool embedded = false;
    std::map<std::string, std::string> fail;
};

Dims parse_dims(std::string const& text) {
    Dims dims{};
    std::istringstream stream(text);
    std::string size;
    while (std::getline(stream, size, 'x')) {
        dims.d[dims.nbDims++] = std::atoll(size.c_str());
    }
    return dims;
}

DataType parse_type(std::string const& text) {
    if (text == "uint8") {
        return DataType::kUINT8;
    }
    return text == "int64" ? DataType::kINT64 : DataType::kFLOAT;
}

Plan parse_plan(std::string const& text) {
    Plan plan;
    std::istringstream lines(text);
    std::string line;
    while (std::getline(lines, line)) {
        std::istringstream words(line);
        std::string kind;
        std::string a;
        std::string b;
        std::string c;
        words >> kind >> a;
        if (kind == "input" || kind == "output") {
            words >> b >> c;
            plan.tensors.push_back({a, parse_type(b), parse_dims(c), kind == "input"});
        } else if (kind == "profile") {
            words >> b >> c;
            plan.profiles.push_back({parse_dims(a), parse_dims(b), parse_dims(c)});
        } else if (kind == "scratch") {
            plan.scratch = std::atoll(a.c_str());
        } else if (kind == "plugins") {
            plan.plugins = true;
        } else if (kind == "embedded") {
            plan.embedded = true;
        } else if (kind == "fail") {
            std::getline(words, plan.fail[a]);
        }
    }
    return plan;
}

std::int64_t volume(Dims const& dims) {
    std::int64_t product = 1;
    for (int i = 0; i < dims.nbDims; ++i) {
        product *= dims.d[i];
    }
    return product;
}

std::size_t width_of(DataType type) {
    return type == DataType::kUINT8 ? 1 : type == DataType::kINT64 ? 8 : 4;
}

bool inside(Dims const& dims, std::vector<Dims> const& range) {
    bool good = dims.nbDims == range[0].nbDims;
    for (int i = 0; good && i < dims.nbDims; ++i) {
        good = dims.d[i] >= range[0].d[i] && dims.d[i] <= range[2].d[i];
    }
    return good;
}

// One run, with everything it needs by value: what a CUDA graph keeps.
struct Run {
    Io input;
    std::vector<Io> outputs;
    std::map<std::string, void*> addresses;
    std::shared_ptr<Dims const> current;  // the context's shape when this runs
    void* scratch = nullptr;
    std::int64_t scratch_bytes = 0;
    std::int32_t profile = 0;
    bool captured = false;

    float element(std::int64_t i) const {
        void const* data = addresses.at(input.name);
        return input.type == DataType::kUINT8
                   ? static_cast<float>(static_cast<std::uint8_t const*>(data)[i])
                   : static_cast<float const*>(data)[i];
    }

    void operator()() const {
        if (captured && std::memcmp(current.get(), &input.dims, sizeof(Dims)) != 0) {
            fake_fault("a graph runs while its context has another shape");
        }
        if (scratch_bytes > 0) {
            std::memset(scratch, 0x5A, static_cast<std::size_t>(scratch_bytes));
        }
        std::int64_t const batch = input.dims.d[0];
        std::int64_t const elements = volume(input.dims) / batch;
        for (Io const& output : outputs) {
            std::int64_t const columns = volume(output.dims) / batch;
            for (std::int64_t b = 0; b < batch; ++b) {
                for (std::int64_t k = 0; k < columns; ++k) {
                    write(output, b, k, b * columns + k, elements);
                }
            }
        }
        last_profile = profile;
        ++runs;
    }

    // Sums for floats; for int64 a class number that depends on item and column.
    void write(Io const& output, std::int64_t item, std::int64_t column, std::int64_t at,
               std::int64_t elements) const {
        void* data = addresses.at(output.name);
        if (output.type == DataType::kINT64) {
            static_cast<std::int64_t*>(data)[at] = (item + 3 * column) % 10;
            return;
        }
        float sum = 0;
        for (std::int64_t i = 0; i < elements; ++i) {
            sum += element(item * elements + i) *
                   fake_weight(static_cast<std::size_t>(i), static_cast<std::size_t>(column));
        }
        static_cast<float*>(data)[at] = sum;
    }
};

struct Shared {
    Plan plan;
    ILogger* logger = nullptr;
    std::atomic<int> contexts{0};

    bool refuses(char const* step) const {
        auto const found = plan.fail.find(step);
        if (found != plan.fail.end()) {
            logger->log(ILogger::Severity::kERROR, found->second.c_str() + 1);
        }
        return found != plan.fail.end();
    }
};

class FakeContext : public VExecutionContextBase, public IExecutionContext {
  public:
    explicit FakeContext(Shared& shared) : shared_(shared) {
        mImpl = this;
        ++shared_.contexts;
    }
    ~FakeContext() noexcept override { --shared_.contexts; }

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
        return io->is_input ? *dims_ : with_batch(io->dims);
    }
    bool setTensorAddress(char const* name, void* data) noexcept override {
        addresses_[name] = data;
        return tensor(name) != nullptr;
    }
    bool enqueueV3(cudaStream_t stream) noexcept override {
        bool const capturing = fake_cuda_is_capturing(stream);
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
            if (io.is_input) {
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
        return shared_.refuses("context") ? nullptr : new FakeContext(shared_);
    }
    std::int64_t getDeviceMemorySizeV2() const noexcept override { return shared_.plan.scratch; }
    std::int32_t getNbOptimizationProfiles() const noexcept override {
        return static_cast<std::int32_t>(shared_.plan.profiles.size());
    }
    Dims getProfileShape(char const*, std::int32_t index,
                         OptProfileSelector which) const noexcept override {
        return shared_.plan
            .profiles[static_cast<std::size_t>(index)][static_cast<std::size_t>(which)];
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
    return static_cast<IRuntime*>(new FakeRuntime(*static_cast<ILogger*>(logger)));
}

extern "C" std::int32_t getInferLibVersion() noexcept {
    char const* text = std::getenv("FAKE_TENSORRT_VERSION");
    return text == nullptr ? NV_TENSORRT_VERSION : std::atoi(text);
}

extern "C" void fake_register_plugins() {
    plugins_registered = true;
}

std::int32_t fake_last_profile() {
    return last_profile;
}

std::int64_t fake_runs() {
    return runs;
}
