//! \file onnx_checks.cpp
//! ONNX files in a library without TensorRT, for comparison with Python. ONNX Runtime and native ops
//! are those that the environment names:
//!
//!     onnx_checks run FILE OUT BATCH PICTURE...  what runs it; then for each batch its outputs' names,
//!                                                types and shapes, and their bytes to OUT
//!     onnx_checks detect FILE PICTURE...         each picture's detections
//!     onnx_checks judge FILE...                  for each `ok`, or code and message
//!     onnx_checks calls FILE                     what the calls of a session give and refuse
//!     onnx_checks threads FILE                   four threads, each with a session of its own
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <string>
#include <thread>
#include <vector>

#include "checking.h"
#include "vim_deploy/detections.h"
#include "vim_deploy/image.h"
#include "vim_deploy/text.h"

namespace {

using namespace checking;

using Words = std::vector<std::string>;

Tensor batch_for(Engine const& engine, Words const& pictures, std::vector<FittedImage>* fitted) {
    std::vector<Image> crops;
    for (std::string const& picture : pictures) {
        if (fitted != nullptr) {
            fitted->push_back(good(fit_image(good(read_upright_image(picture)),
                                             engine.exported()->image)));
            crops.push_back(fitted->back().image);
        } else {
            crops.push_back(good(crop_image(good(read_image(picture)), engine.exported()->image)));
        }
    }
    return good(batch_of_crops(crops, engine.exported()->image, engine.exported()->preprocess));
}

int run(Engine const& engine, char const* out, std::size_t step, Words const& pictures) {
    std::cout << engine.runs_with() << "\n";
    for (std::string const& note : engine.notes()) {
        std::cout << "note: " << note << "\n";
    }
    auto session = good(engine.create_session());
    std::ofstream stream(out, std::ios::binary);
    for (std::size_t first = 0; first < pictures.size(); first += step) {
        std::size_t const last = std::min(pictures.size(), first + step);
        Words const part(pictures.begin() + static_cast<std::ptrdiff_t>(first),
                         pictures.begin() + static_cast<std::ptrdiff_t>(last));
        auto const outputs = session.infer(batch_for(engine, part, nullptr));
        if (!outputs) {
            std::cerr << outputs.error().text() << "\n";
            return outputs.error().exit_code();
        }
        for (Tensor const& output : *outputs) {
            std::cout << output.name << " " << name_of(output.type) << " " << text_of(output.shape)
                      << "\n";
            stream.write(reinterpret_cast<char const*>(output.bytes.data()),
                         static_cast<std::streamsize>(output.bytes.size()));
        }
    }
    return 0;
}

int detect(Engine const& engine, Words const& pictures) {
    auto session = good(engine.create_session());
    std::vector<FittedImage> fitted;
    Tensor const batch = batch_for(engine, pictures, &fitted);
    std::vector<PictureSize> sizes;
    for (FittedImage const& picture : fitted) {
        sizes.push_back(picture.inside);
    }
    auto const outputs = good(session.infer(batch, sizes));
    for (auto const& found : good(find_detections(outputs, *engine.exported(), fitted))) {
        std::cout << "picture\n";
        for (Detection const& one : found) {
            std::cout << one.index << " " << one.score;
            for (float const corner : one.box) {
                std::cout << " " << corner;
            }
            std::cout << "\n";
        }
    }
    return 0;
}

int judge(Words const& files) {
    for (std::string const& file : files) {
        auto const engine = Engine::open(file);
        std::cout << (engine ? "ok" : engine.error().code + " " +
                                          printable_line(engine.error().message + ": " +
                                                         engine.error().why))
                  << "\n";
    }
    return 0;
}

// FILE takes float32 pictures in any batch, and gives one output of a row for each.
int calls(char const* path, Engine const& engine) {
    CHECK(engine.record() == nullptr);
    CHECK(engine.exported() != nullptr);
    CHECK(tensorrt_version().empty());
    CHECK(engine.batch_for(7) == 7);
    CHECK(engine.input().shape[0] == -1);
    auto session = good(engine.create_session());
    Shape shape = engine.input().shape;
    shape[0] = 3;
    std::vector<float> const values(bytes_of(DataType::kFloat32, shape) / sizeof(float), 0.25F);
    auto const batch = good(TensorView::of(values, shape));
    auto const outputs = good(session.infer(batch));
    CHECK(good(session.output_shapes(shape)) == std::vector<Shape>{outputs[0].shape});
    CHECK(outputs[0].shape[0] == 3);
    Shape wrong = shape;
    wrong.back() += 1;
    CHECK(code_of(session.infer(TensorView(DataType::kFloat32, wrong, values.data()))) ==
          "VIM-415");
    CHECK(code_of(session.infer(TensorView(DataType::kFloat32, {3}, values.data()))) == "VIM-415");
    wrong[0] = 0;
    CHECK(code_of(session.infer(TensorView(DataType::kFloat32, wrong, values.data()))) ==
          "VIM-415");
    CHECK(code_of(session.infer(TensorView(DataType::kUint8, shape, values.data()))) == "VIM-415");
    CHECK(code_of(session.infer(TensorView(DataType::kFloat32, shape, nullptr))) == "VIM-415");
    CHECK(code_of(session.infer(batch, {{1, 1}, {1, 1}, {1, 1}})) == "VIM-415");
    CHECK(code_of(session.output_shapes({1})) == "VIM-415");
    CHECK(code_of(session.infer_on_device(batch, {}, nullptr)) == "VIM-203");
    CHECK(session.stream() == nullptr);
    SessionOptions graph;
    graph.cuda_graph = true;
    CHECK(code_of(engine.create_session(graph)) == "VIM-203");
    EngineOptions options;
    options.plugin_library = "libvim_plugins.so";
    CHECK(code_of(Engine::open(path, options)) == "VIM-203");
    options = {};
    options.threads = -1;
    CHECK(code_of(Engine::open(path, options)) == "VIM-203");
    options = {};
    options.ops_library = "no/such/library.so";
    CHECK(code_of(Engine::open(path, options)) == "VIM-401");
    options.native_ops = false;
    CHECK(code_of(Engine::open(path, options)) == "VIM-203");
    CHECK(code_of(load_plugin("libvim_plugins.so")) == "VIM-301");
    // ONNX Runtime's messages come for files that are opened from now on.
    static std::atomic<int> messages{0};
    set_log([](Severity, char const*) { ++messages; }, Severity::kVerbose);
    auto const logged = good(Engine::open(path));
    CHECK(messages > 0);
    set_log(nullptr);
    // An engine may go before its session.
    auto last = good(good(Engine::open(path)).create_session());
    CHECK(good(last.infer(batch))[0].bytes == outputs[0].bytes);
    return failures == 0 ? 0 : 1;
}

int threads(Engine const& engine) {
    Shape shape = engine.input().shape;
    shape[0] = 2;
    std::size_t const count = bytes_of(DataType::kFloat32, shape) / sizeof(float);
    auto const answer = [&](Session& session, int seed) {
        std::vector<float> values(count);
        for (std::size_t i = 0; i < count; ++i) {
            values[i] = static_cast<float>((static_cast<int>(i) * 31 + seed * 17) % 23 - 11) / 11;
        }
        return good(session.infer(good(TensorView::of(values, shape))))[0].bytes;
    };
    std::vector<std::vector<std::byte>> expected;
    auto session = good(engine.create_session());
    for (int seed = 0; seed < 4; ++seed) {
        expected.push_back(answer(session, seed));
    }
    std::vector<std::thread> workers;
    for (int seed = 0; seed < 4; ++seed) {
        workers.emplace_back([&, seed] {
            auto own = good(engine.create_session());
            for (int round = 0; round < 8; ++round) {
                CHECK(answer(own, seed) == expected[static_cast<std::size_t>(seed)]);
            }
        });
    }
    for (std::thread& worker : workers) {
        worker.join();
    }
    return failures == 0 ? 0 : 1;
}

}  // namespace

int main(int count, char** arguments) {
    Words const words(arguments + 1, arguments + count);
    std::string const name = words.empty() ? "" : words[0];
    if (name == "judge") {
        return judge({words.begin() + 1, words.end()});
    }
    if (words.size() < 2) {
        std::cerr << "see onnx_checks.cpp\n";
        return 2;
    }
    auto const engine = Engine::open(words[1]);
    if (!engine) {
        std::cerr << engine.error().text() << "\n";
        return engine.error().exit_code();
    }
    if (name == "run" && words.size() > 4) {
        return run(*engine, words[2].c_str(), std::stoul(words[3]),
                   {words.begin() + 4, words.end()});
    }
    if (name == "detect") {
        return detect(*engine, {words.begin() + 2, words.end()});
    }
    return name == "calls" ? calls(words[1].c_str(), *engine) : threads(*engine);
}
