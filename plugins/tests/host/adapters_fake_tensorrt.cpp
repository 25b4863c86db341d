//! \file adapters_fake_tensorrt.cpp
//! A libnvinfer.so of our own: the registry, the logger and the version, and nothing else. Its
//! objects derive from the classes of TensorRT's headers, so that calls land where they would in
//! the real library.
#include <NvInferRuntime.h>
#include <dlfcn.h>

#include <algorithm>
#include <cstring>

#include "adapters_fakes.h"

namespace {

using namespace nvinfer1;

FakeTensorRt& state() {
    static auto* instance = new FakeTensorRt;
    return *instance;
}

class FakeLogger : public ILogger {
  public:
    void log(Severity severity, char const* text) noexcept override {
        state().messages.push_back({severity, text});
    }
};

FakeLogger& logger() {
    static auto* instance = new FakeLogger;
    return *instance;
}

class FakeLoggerFinder : public ILoggerFinder {
  public:
    ILogger* findLogger() override { return &logger(); }
};

// Name of a creator of either generation.
std::string name_of(IPluginCreatorInterface const& creator) {
    if (auto const* v3 = dynamic_cast<IPluginCreatorV3One const*>(&creator)) {
        return v3->getPluginName();
    }
    auto const* v2 = dynamic_cast<IPluginCreator const*>(&creator);
    return v2 == nullptr ? "" : v2->getPluginName();
}

class FakeRegistry : public IPluginRegistry {
  public:
    bool registerCreator(IPluginCreatorInterface& creator, char const*) noexcept override {
        auto& all = state().creators;
        bool const known = std::any_of(all.begin(), all.end(), [&](auto const* other) {
            return name_of(*other) == name_of(creator);
        });
        if (known) {
            ++state().refused;
            return false;
        }
        all.push_back(&creator);
        return true;
    }
    bool registerCreator(IPluginCreator& creator, char const* space) noexcept override {
        return registerCreator(static_cast<IPluginCreatorInterface&>(creator), space);
    }
    bool deregisterCreator(IPluginCreatorInterface const& creator) noexcept override {
        auto& all = state().creators;
        auto const at = std::find(all.begin(), all.end(), &creator);
        if (at == all.end()) {
            return false;
        }
        all.erase(at);
        return true;
    }
    bool deregisterCreator(IPluginCreator const& creator) noexcept override {
        return deregisterCreator(static_cast<IPluginCreatorInterface const&>(creator));
    }

    // What the real one does: open the library, ask for its creators, register them; fail when one
    // of them is known.
    PluginLibraryHandle loadLibrary(char const* path) noexcept override {
        void* handle = ::dlopen(path, RTLD_NOW | RTLD_LOCAL);
        if (handle == nullptr) {
            return nullptr;
        }
        using Finder = void (*)(ILoggerFinder*);
        static FakeLoggerFinder finder;
        reinterpret_cast<Finder>(::dlsym(handle, "setLoggerFinder"))(&finder);
        std::int32_t const before = state().refused;
        if (void* entry = ::dlsym(handle, "getCreators")) {
            register_all<IPluginCreatorInterface>(entry);
        } else {
            register_all<IPluginCreator>(::dlsym(handle, "getPluginCreators"));
        }
        return state().refused == before ? handle : nullptr;
    }
    void deregisterLibrary(PluginLibraryHandle handle) noexcept override {
        state().creators.clear();
        ::dlclose(handle);
    }

    IPluginCreator* const* getPluginCreatorList(std::int32_t*) const noexcept override {
        return nullptr;
    }
    IPluginCreator* getPluginCreator(char const*, char const*, char const*) noexcept override {
        return nullptr;
    }
    void setErrorRecorder(IErrorRecorder*) noexcept override {}
    IErrorRecorder* getErrorRecorder() const noexcept override { return nullptr; }
    bool isParentSearchEnabled() const override { return true; }
    void setParentSearchEnabled(bool) override {}
    IPluginCreatorInterface* const* getAllCreators(std::int32_t* count) const noexcept override {
        *count = static_cast<std::int32_t>(state().creators.size());
        return state().creators.data();
    }
    IPluginCreatorInterface* getCreator(char const* name, char const*,
                                        char const*) noexcept override {
        for (auto* creator : state().creators) {
            if (name_of(*creator) == name) {
                return creator;
            }
        }
        return nullptr;
    }
    IPluginResource* acquirePluginResource(char const*, IPluginResource*) noexcept override {
        return nullptr;
    }
    std::int32_t releasePluginResource(char const*) noexcept override { return 0; }
    IPluginCreatorInterface* const* getAllCreatorsRecursive(std::int32_t* count) noexcept override {
        return getAllCreators(count);
    }

  private:
    template <typename Creator>
    void register_all(void* entry) {
        std::int32_t count = 0;
        auto const* list = reinterpret_cast<Creator* const* (*)(std::int32_t&)>(entry)(count);
        for (std::int32_t i = 0; i < count; ++i) {
            registerCreator(*list[i], "");
        }
    }
};

}  // namespace

extern "C" FakeTensorRt* fake_tensorrt() {
    return &state();
}

extern "C" IPluginRegistry* getPluginRegistry() noexcept {
    static auto* instance = new FakeRegistry;
    return instance;
}

extern "C" ILogger* getLogger() noexcept {
    return &logger();
}

extern "C" std::int32_t getInferLibVersion() noexcept {
    return NV_TENSORRT_MAJOR * 10000 + NV_TENSORRT_MINOR * 100 + NV_TENSORRT_PATCH;
}
