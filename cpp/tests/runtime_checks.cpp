//! \file runtime_checks.cpp
//! Sessions under the fakes: `runtime_checks CASE PLAN`. Ends with 0 when everything held.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "checking.h"

namespace {

using namespace checking;

void check_infer(Engine const& engine) {
    CHECK(engine.input().name == "image");
    CHECK(engine.input().shape == shape_for(-1));
    CHECK(engine.outputs().size() == 1);
    CHECK(engine.size() == nullptr);
    CHECK(engine.batch_for(1) == 1);
    CHECK(engine.batch_for(3) == 3);
    CHECK(engine.batch_for(9) == 4);
    CHECK(engine.record() != nullptr);
    CHECK(tensorrt_version().find('.') != std::string::npos);
    auto session = good(engine.create_session());
    for (int seed = 0; seed < 3; ++seed) {
        for (std::int64_t const batch : {1, 4, 3, 2}) {
            CHECK(answers(session, batch, seed));
        }
    }
    auto const outputs =
        good(session.infer(good(TensorView::of(batch_values(1, 0), shape_for(1)))));
    CHECK(code_of(outputs[0].values<std::int64_t>()) == "VIM-415");
}

void check_wrong_input(Engine const& engine) {
    auto session = good(engine.create_session());
    auto const values = batch_values(8, 1);
    auto const refused = [&](Shape const& shape) {
        auto const result = session.infer(TensorView(DataType::kFloat32, shape, values.data()));
        return code_of(result) == "VIM-905" && !result.error().fix.empty() &&
               answers(session, 2, 5);
    };
    CHECK(code_of(session.infer(TensorView(DataType::kFloat32, {2, 3, 32, 32}, nullptr))) ==
          "VIM-415");
    CHECK(refused(shape_for(5)));
    CHECK(refused(shape_for(0)));
    CHECK(refused(shape_for(-1)));
    CHECK(refused({2, 3, 32, 32}));
    CHECK(refused({1, 1, 32, 33}));
    CHECK(refused({1, 1024}));
    CHECK(refused({}));
    CHECK(code_of(session.infer(TensorView(DataType::kUint8, shape_for(1), values.data()))) ==
          "VIM-415");
    CHECK(code_of(session.infer(TensorView(DataType::kFloat32, shape_for(1), nullptr))) ==
          "VIM-415");
    CHECK(code_of(TensorView::of(values, shape_for(7))) == "VIM-415");
    CHECK(code_of(TensorView::of(values, {-8, 1, 32, -32})) == "VIM-415");
    CHECK(code_of(session.infer(good(TensorView::of(batch_values(1, 0), shape_for(1))),
                                {{1, 1}})) == "VIM-415");
    CHECK(code_of(session.output_shapes(shape_for(5))) == "VIM-905");
    CHECK(good(session.output_shapes(shape_for(3))) == std::vector<Shape>({{3, 10}}));
    CHECK(answers(session, 4, 2));
}

void check_cuda_graph(Engine const& engine) {
    SessionOptions options;
    options.cuda_graph = true;
    options.max_graphs = 2;
    {
        auto session = good(engine.create_session(options));
        for (int seed = 0; seed < 4; ++seed) {
            CHECK(answers(session, 1, seed));
            CHECK(answers(session, 4, seed));
        }
        // One run to warm up and one capture for each shape; every answer from a graph.
        CHECK(fake_cuda_calls("cudaGraphInstantiateWithFlags") == 2);
        CHECK(fake_cuda_calls("cudaGraphLaunch") == 8);
        CHECK(fake_runs() == 10);
        CHECK(answers(session, 3, 9));  // the third shape: batch 1 gives way
        CHECK(answers(session, 4, 9));
        CHECK(fake_cuda_calls("cudaGraphInstantiateWithFlags") == 3);
        CHECK(answers(session, 1, 9));
        CHECK(fake_cuda_calls("cudaGraphInstantiateWithFlags") == 4);
    }
    options.max_graphs = 0;
    CHECK(code_of(engine.create_session(options)) == "VIM-202");
}

void check_capture_refused(Engine const& engine) {
    SessionOptions options;
    options.cuda_graph = true;
    auto session = good(engine.create_session(options));
    auto const values = batch_values(1, 0);
    auto const view = good(TensorView::of(values, shape_for(1)));
    auto const result = session.infer(view);
    CHECK(code_of(result) == "VIM-904");
    CHECK(result.error().why.find("not capturable") != std::string::npos);
    CHECK(result.error().fix.find("cuda_graph") != std::string::npos);
    auto plain = good(engine.create_session());
    CHECK(answers(plain, 1, 0));
}

// PLAN is a detector's: height and width go in beside the pictures, and come out as boxes.
void check_sizes(Engine const& engine) {
    CHECK(engine.input().name == "image");
    CHECK(engine.size() != nullptr && engine.size()->shape == Shape({-1, 2}));
    for (bool const graph : {false, true}) {
        SessionOptions options;
        options.cuda_graph = graph;
        auto session = good(engine.create_session(options));
        auto const values = batch_values(3, 1);
        auto const three = good(TensorView::of(values, shape_for(3)));
        auto const corners = [](Result<std::vector<Tensor>> const& outputs) {
            // Right and bottom of the second row of each picture.
            std::vector<float> found;
            auto const boxes = good(outputs->front().values<float>());
            for (std::size_t i = 0; i < 3; ++i) {
                found.push_back(boxes[i * 12 + 6]);
                found.push_back(boxes[i * 12 + 7]);
            }
            return found;
        };
        for (std::int64_t round = 0; round < 3; ++round) {
            auto const outputs = session.infer(three, {{8, 16 + round}, {0, 4}, {32, 1}});
            auto const width = static_cast<float>(16 + round);
            CHECK(corners(outputs) == std::vector<float>({width, 8, 0, 0, 1, 32}));
        }
        CHECK(corners(session.infer(three)) == std::vector<float>(6, 32));
        CHECK(code_of(session.infer(three, {{1, 1}})) == "VIM-415");
        CHECK(code_of(session.infer(three, {{1, 1}, {33, 1}, {1, 1}})) == "VIM-415");
        CHECK(code_of(session.infer(three, {{1, 1}, {1, -1}, {1, 1}})) == "VIM-415");
        CHECK(corners(session.infer(three)) == std::vector<float>(6, 32));
        std::vector<void*> const outputs(engine.outputs().size(), &session);
        CHECK(code_of(session.infer_on_device(three, outputs, session.stream())) == "VIM-415");
    }
}

// Device memory with values in it.
struct OnDevice {
    void* memory = nullptr;
    std::size_t bytes;

    explicit OnDevice(std::size_t size) : bytes(size) {
        CHECK(cudaMalloc(&memory, size) == cudaSuccess);
    }
    OnDevice(OnDevice const&) = delete;
    OnDevice& operator=(OnDevice const&) = delete;
    ~OnDevice() { cudaFree(memory); }
};

void check_on_device(Engine const& engine) {
    auto session = good(engine.create_session());
    cudaStream_t streams[2] = {};
    for (auto& stream : streams) {
        CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) == cudaSuccess);
    }
    {
        auto const values = batch_values(3, 4);
        OnDevice input(values.size() * sizeof(float));
        OnDevice first(3 * kClasses * sizeof(float));
        OnDevice second(2 * kClasses * sizeof(float));
        cudaMemcpyAsync(input.memory, values.data(), input.bytes, cudaMemcpyHostToDevice,
                        streams[0]);
        TensorView const three(DataType::kFloat32, shape_for(3), input.memory);
        TensorView const two(DataType::kFloat32, shape_for(2), input.memory);
        CHECK(session.infer_on_device(three, {first.memory}, streams[0]).ok());
        // Another stream, without waiting: the session orders them.
        CHECK(session.infer_on_device(two, {second.memory}, streams[1]).ok());
        std::vector<float> back(2 * kClasses);
        cudaMemcpyAsync(back.data(), second.memory, second.bytes, cudaMemcpyDeviceToHost,
                        streams[1]);
        cudaStreamSynchronize(streams[1]);
        auto const expected = expected_logits(values);
        CHECK(std::equal(back.begin(), back.end(), expected.begin()));
        CHECK(fake_runs() == 2);
        // A call from host memory goes on where the device stands.
        CHECK(session.infer_on_device(three, {first.memory}, streams[0]).ok());
        CHECK(answers(session, 4, 1));
        CHECK(fake_runs() == 4);
        CHECK(code_of(session.infer_on_device(three, {}, streams[0])) == "VIM-415");
        CHECK(code_of(session.infer_on_device(three, {nullptr}, streams[0])) == "VIM-415");
        TensorView const five(DataType::kFloat32, shape_for(5), input.memory);
        CHECK(code_of(session.infer_on_device(five, {first.memory}, streams[0])) == "VIM-905");
        cudaStreamSynchronize(streams[0]);
    }
    for (auto& stream : streams) {
        cudaStreamDestroy(stream);
    }
}

// PLAN has the profiles 1..1 and 2..4.
void check_profiles(Engine const& engine) {
    for (bool const graph : {false, true}) {
        SessionOptions options;
        options.cuda_graph = graph;
        auto session = good(engine.create_session(options));
        std::map<std::int64_t, std::int32_t> const wanted{{1, 0}, {4, 1}, {2, 1}};
        for (auto const& [batch, profile] : wanted) {
            CHECK(answers(session, batch, 3));
            CHECK(fake_last_profile() == profile);
        }
    }
    CHECK(engine.batch_for(1) == 1);
    CHECK(engine.batch_for(2) == 2);
}

void check_threads(Engine const& engine) {
    std::vector<std::thread> threads;
    for (int number = 0; number < 2; ++number) {
        threads.emplace_back([&engine, number] {
            SessionOptions options;
            // One captures graphs and lets old ones go while the other takes memory.
            options.cuda_graph = number == 0;
            options.max_graphs = 1;
            for (int round = 0; round < 5; ++round) {
                auto session = good(engine.create_session(options));
                for (int call = 0; call < 6; ++call) {
                    CHECK(answers(session, 1 + (call + number) % 4, round));
                }
            }
        });
    }
    // The log changes while both write to it.
    std::atomic<int> messages{0};
    for (int change = 0; change < 200; ++change) {
        set_log([&messages](Severity, char const*) { ++messages; },
                change % 2 == 0 ? Severity::kInfo : Severity::kVerbose);
        std::this_thread::sleep_for(std::chrono::microseconds(100));
    }
    for (std::thread& thread : threads) {
        thread.join();
    }
    CHECK(messages > 0);
    set_log({});
}

void check_lifetime(std::string const& path) {
    auto engine = Engine::open(path);
    auto session = good(engine->create_session());
    engine = Error{"VIM-401", "let go", "", ""};
    CHECK(answers(session, 2, 1));
    auto moved = std::move(session);
    CHECK(answers(moved, 3, 1));
    EngineOptions options;
    options.device = 1;
    auto const other = good(Engine::open(path, options));
    moved = good(other.create_session());
    CHECK(answers(moved, 4, 1));
    int device = -1;
    CHECK(cudaGetDevice(&device) == cudaSuccess);
    CHECK(device == 0);
}

// Every allocation, copy and launch fails once; what was taken is given back, and the next try
// goes well.
void check_failures(Engine const& engine) {
    SessionOptions options;
    options.cuda_graph = true;
    int failed = 0;
    for (char const* name :
         {"cudaMalloc", "cudaMallocHost", "cudaStreamCreateWithFlags", "cudaEventCreateWithFlags",
          "cudaMemcpyAsync", "cudaStreamSynchronize", "cudaStreamBeginCapture",
          "cudaStreamEndCapture", "cudaGraphInstantiateWithFlags", "cudaGraphLaunch",
          "cudaStreamWaitEvent", "cudaGetDevice"}) {
        for (int nth = 1;; ++nth) {
            fake_cuda_fail(name, nth, cudaErrorMemoryAllocation);
            auto session = engine.create_session(options);
            std::string code = code_of(session);
            if (session) {
                auto const values = batch_values(2, nth);
                auto const view = good(TensorView::of(values, shape_for(2)));
                code = code_of(session->infer(view));
                fake_cuda_fail(name, 0, cudaSuccess);
                CHECK(answers(*session, 2, nth));
            }
            fake_cuda_fail(name, 0, cudaSuccess);
            if (code == "no error") {
                CHECK(nth > 1);  // the function is called at all
                break;
            }
            CHECK(code == "VIM-906");
            ++failed;
        }
    }
    CHECK(failed >= 15);
}

void check_embedded_code(std::string const& path) {
    auto const refused = Engine::open(path);
    CHECK(code_of(refused) == "VIM-203");
    CHECK(refused.error().fix.find("allow_embedded_code") != std::string::npos);
    EngineOptions options;
    options.allow_embedded_code = true;
    auto session = good(good(Engine::open(path, options)).create_session());
    CHECK(answers(session, 2, 1));
}

// PLAN has no record.
void check_missing_record(std::string const& path) {
    CHECK(code_of(Engine::open(path)) == "VIM-401");
    EngineOptions options;
    options.allow_missing_record = true;
    auto const engine = good(Engine::open(path, options));
    CHECK(engine.record() == nullptr);
    auto session = good(engine.create_session());
    CHECK(answers(session, 3, 1));
}

void check_log(std::string const& path) {
    std::vector<std::string> messages;
    set_log([&messages](Severity, char const* text) { messages.emplace_back(text); },
            Severity::kVerbose);
    CHECK(Engine::open(path).ok());
    CHECK(messages == std::vector<std::string>{"deserialised"});
    set_log([&messages](Severity, char const* text) { messages.emplace_back(text); });
    CHECK(Engine::open(path).ok());
    set_log({}, Severity::kVerbose);
    CHECK(Engine::open(path).ok());
    CHECK(messages.size() == 1);
}

using Check = void (*)(Engine const&);

}  // namespace

int main(int count, char** words) {
    std::map<std::string, Check> const checks{{"infer", check_infer},
                                              {"wrong_input", check_wrong_input},
                                              {"cuda_graph", check_cuda_graph},
                                              {"capture_refused", check_capture_refused},
                                              {"on_device", check_on_device},
                                              {"profiles", check_profiles},
                                              {"threads", check_threads},
                                              {"failures", check_failures},
                                              {"sizes", check_sizes}};
    std::string const name = count == 3 ? words[1] : "";
    if (name == "lifetime") {
        check_lifetime(words[2]);
    } else if (name == "log") {
        check_log(words[2]);
    } else if (name == "embedded_code") {
        check_embedded_code(words[2]);
    } else if (name == "missing_record") {
        check_missing_record(words[2]);
    } else if (checks.count(name) != 0) {
        checks.at(name)(good(Engine::open(words[2])));
    } else {
        std::fprintf(stderr, "usage: runtime_checks CASE PLAN\n");
        return 2;
    }
    return failures == 0 ? 0 : 1;
}
