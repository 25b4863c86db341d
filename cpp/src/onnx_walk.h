//! \file onnx_walk.h
//! Going through the messages of an ONNX model within bounds, which are those of
//! vim_deploy/artifact/onnx_file.py. Everything is counted, also what nobody asks for: a runtime
//! builds all of it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "protobuf.h"

namespace vim_deploy {

//! Messages of onnx.proto (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto).
enum class Kind {
    kNone,
    kModel,
    kTraining,
    kGraph,
    kNode,
    kAttribute,
    kTensor,
    kSparse,
    kValue,
    kType,
    kTensorType,
    kHolder,  //!< of a type, in its first field or its second
    kShape,
    kSize,
    kFunction,
    kOpset,
    kEntry,
    kAnnotation,
    kLeaf,
};

//! The message that a field of `parent` holds; kNone for other fields.
Kind child_of(Kind parent, std::uint64_t number) noexcept;

class Walk {
  public:
    explicit Walk(std::size_t size) : size_(size) {}
    Walk(Walk const&) = delete;
    Walk& operator=(Walk const&) = delete;
    virtual ~Walk() = default;

    //! What is wrong, a sentence; empty when nothing is.
    std::string flaw;

  protected:
    using Field = protobuf::Field;
    using Wire = protobuf::Wire;

    //! Notes what is wrong; false.
    bool fail(std::string const& what) {
        if (flaw.empty()) {
            flaw = what;
        }
        return false;
    }

    //! Goes through a message by `each`, with what is to be taken of its kind.
    virtual bool walk(Kind kind, std::string_view bytes, unsigned depth) = 0;

    //! Calls `take` with each field of a message, and walks through inner messages for which it
    //! gives false. Ends when something is wrong; false then.
    template <typename Take>
    bool each(Kind kind, std::string_view bytes, unsigned depth, Take const& take) {
        if (!enter(depth)) {
            return false;
        }
        protobuf::Fields fields(bytes);
        for (Field field; fields.next(field);) {
            if (!count_field(kind, field)) {
                return false;
            }
            bool const taken = take(field);
            if (!flaw.empty()) {
                return false;
            }
            Kind const child = taken || field.wire != Wire::kLength
                                   ? Kind::kNone
                                   : child_of(kind, field.number);
            if (child != Kind::kNone && !walk(child, field.bytes, depth + 1)) {
                return false;
            }
        }
        return fields.flaw() == nullptr || fail(fields.flaw());
    }

    //! Takes a text, which has to be UTF-8.
    bool text(Field const& field, std::string& to);

  private:
    bool enter(unsigned depth);
    bool count_field(Kind kind, Field const& field);

    std::size_t size_;
    std::size_t messages_ = 0;
    std::size_t fields_ = 0;
    std::uint64_t numbers_ = 0;
};

}  // namespace vim_deploy
