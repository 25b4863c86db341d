//! \file classification.cpp
#include "vim_deploy/classification.h"

#include <algorithm>
#include <cmath>

#include "guard.h"
#include "half.h"

namespace vim_deploy {
namespace {

using Scores = std::vector<std::vector<Class>>;

Error no_classes(std::string const& why) {
    return {"VIM-415", "the engine's outputs are not classes", why,
            "use an engine exported with --head logits, softmax or topk:K"};
}

// A class made of NaN or Inf would be a wrong answer that looks like one.
Status check_finite(std::string const& name, std::vector<float> const& values) {
    auto const count = std::count_if(values.begin(), values.end(),
                                     [](float value) { return !std::isfinite(value); });
    if (count == 0) {
        return Done{};
    }
    return Error{
        "VIM-430", "the engine gives NaN or Inf: " + name,
        std::to_string(count) + " of " + std::to_string(values.size()) +
            " values are not finite: an overflow in half precision, or weights that are "
            "not finite",
        "compare the engine with its checkpoint (vim-deploy verify); keep more of the model "
        "in float32, or use bfloat16"};
}

// An output of float32 or float16 as rows [batch, classes].
Result<std::vector<std::vector<float>>> rows_of(Tensor const& tensor) {
    bool const whole =
        !tensor.bytes.empty() && tensor.bytes.size() == bytes_of(tensor.type, tensor.shape);
    bool const real = tensor.type == DataType::kFloat32 || tensor.type == DataType::kFloat16;
    if (tensor.shape.size() != 2 || !real || !whole) {
        return no_classes(tensor.name + " is " + name_of(tensor.type) + " " +
                          text_of(tensor.shape) + " in " + std::to_string(tensor.bytes.size()) +
                          " bytes");
    }
    auto const values = as_floats(tensor);
    if (!values) {
        return values.error();
    }
    VIM_DEPLOY_TRY(check_finite(tensor.name, *values));
    auto const width = static_cast<std::ptrdiff_t>(tensor.shape[1]);
    std::vector<std::vector<float>> rows;
    for (auto at = values->begin(); at != values->end(); at += width) {
        rows.emplace_back(at, at + width);
    }
    return rows;
}

// In double, less the largest, so that nothing overflows.
std::vector<double> softmax(std::vector<float> const& logits) {
    double const largest = *std::max_element(logits.begin(), logits.end());
    std::vector<double> values;
    double sum = 0;
    for (float const logit : logits) {
        values.push_back(std::exp(static_cast<double>(logit) - largest));
        sum += values.back();
    }
    for (double& value : values) {
        value /= sum;
    }
    return values;
}

// The best first. There is nothing here that is not a number: `rows_of` refuses it.
bool comes_first(Class const& a, Class const& b) noexcept {
    return a.probability > b.probability;
}

std::string label_of(std::int64_t index, ExportInfo const& exported) {
    bool const known = index >= 0 && index < static_cast<std::int64_t>(exported.labels.size());
    return known ? exported.labels[static_cast<std::size_t>(index)]
                 : "class " + std::to_string(index);
}

Result<std::vector<std::int64_t>> indices_of(Tensor const& tensor) {
    if (tensor.type == DataType::kInt32) {
        auto const values = tensor.values<std::int32_t>();
        if (!values) {
            return values.error();
        }
        return std::vector<std::int64_t>(values->begin(), values->end());
    }
    return tensor.values<std::int64_t>();
}

// The head topk has chosen and sorted already.
Result<Scores> from_top_k(std::vector<Tensor> const& outputs, ExportInfo const& exported) {
    if (outputs.size() != 2 || outputs[0].shape != outputs[1].shape) {
        return no_classes("topk has probabilities and classes of one shape");
    }
    bool const first = outputs[0].type == DataType::kFloat32 ||
                       outputs[0].type == DataType::kFloat16;
    auto const rows = rows_of(outputs[first ? 0 : 1]);
    auto const indices = indices_of(outputs[first ? 1 : 0]);
    if (!rows || !indices) {
        return rows ? indices.error() : rows.error();
    }
    if (indices->size() != rows->size() * rows->front().size()) {
        return no_classes("topk has a class for each probability");
    }
    Scores scores;
    std::size_t at = 0;
    for (auto const& row : *rows) {
        scores.emplace_back();
        for (float const probability : row) {
            std::int64_t const index = (*indices)[at++];
            scores.back().push_back({index, label_of(index, exported), probability});
        }
    }
    return scores;
}

Result<Scores> from_all(Tensor const& output, ExportInfo const& exported) {
    auto rows = rows_of(output);
    if (!rows) {
        return rows.error();
    }
    Scores scores;
    for (auto& row : *rows) {
        if (row.size() == 1 && exported.head == "logits") {
            // One logit is that of class 1 against class 0, whose logit is 0.
            row.insert(row.begin(), 0);
        }
        std::vector<double> const probabilities =
            exported.head == "softmax" ? std::vector<double>(row.begin(), row.end()) : softmax(row);
        scores.emplace_back();
        for (std::size_t i = 0; i < probabilities.size(); ++i) {
            auto const index = static_cast<std::int64_t>(i);
            scores.back().push_back({index, label_of(index, exported), probabilities[i]});
        }
    }
    return scores;
}

}  // namespace

Result<Scores> best_classes(std::vector<Tensor> const& outputs, ExportInfo const& exported,
                            std::size_t count) {
    return guarded("sorting classes", [&]() -> Result<Scores> {
        bool const top_k = exported.head.rfind("topk:", 0) == 0;
        bool const all = exported.head == "logits" || exported.head == "softmax";
        if (!top_k && (!all || outputs.size() != 1)) {
            return no_classes("its head is " + exported.head);
        }
        auto scores = top_k ? from_top_k(outputs, exported) : from_all(outputs[0], exported);
        if (!scores) {
            return scores;
        }
        for (auto& row : *scores) {
            std::stable_sort(row.begin(), row.end(), comes_first);
            if (row.size() > count) {
                row.resize(count);
            }
        }
        return scores;
    });
}

}  // namespace vim_deploy
