//! \file record.cpp
#include "vim_deploy/record.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "export_info.h"
#include "file.h"
#include "guard.h"
#include "json.h"

namespace vim_deploy {
namespace {

// Raised when a field changes its meaning (vim_deploy/artifact/record.py, RECORD_FORMAT).
constexpr std::int64_t kRecordFormat = 1;
// Keeps every product of sizes within 64 bits, whatever a record says.
constexpr std::int64_t kLargestSide = 65536;

// What is quoted of a number, which may have millions of digits.
std::string excerpt(std::string const& text) {
    constexpr std::size_t kLongest = 40;
    return text.size() > kLongest ? text.substr(0, kLongest) + "..." : text;
}

// Reads values and keeps the first complaint with its place, so that the readers below need no
// error handling of their own; after a complaint they give empty values.
class Reader {
  public:
    using Kind = Json::Kind;

    // A cursor: a value and the path that leads to it.
    struct At {
        Json const* value;
        std::string path;
    };

    std::string const& complaint() const noexcept { return complaint_; }
    void complain(std::string const& path, std::string const& what) {
        if (complaint_.empty()) {
            complaint_ = (path.empty() ? "the document" : path) + ": " + what;
        }
    }

    bool is(At const& at, Kind kind) {
        if (at.value != nullptr && at.value->kind() != kind) {
            complain(at.path, std::string(Json::name(kind)) + " was expected, found " +
                                  Json::name(at.value->kind()));
        }
        return at.value != nullptr && at.value->kind() == kind;
    }

    At member(At const& object, char const* key) {
        std::string path = object.path.empty() ? key : object.path + "." + key;
        Json const* value = is(object, Kind::kObject) ? object.value->find(key) : nullptr;
        if (value == nullptr) {
            complain(path, "missing");
        }
        return {value, std::move(path)};
    }

    // A member that may be missing or null; its value is null then.
    At optional(At const& object, char const* key) {
        Json const* value = is(object, Kind::kObject) ? object.value->find(key) : nullptr;
        bool const there = value != nullptr && value->kind() != Kind::kNull;
        return {there ? value : nullptr, key};
    }

    std::string text(At const& at) {
        return is(at, Kind::kText) ? at.value->text() : std::string();
    }
    bool boolean(At const& at) { return is(at, Kind::kBool) && at.value->boolean(); }

    std::int64_t integer(At const& at, std::int64_t least) {
        std::int64_t number = least;
        if (is(at, Kind::kNumber) && (!at.value->as_integer(number) || number < least)) {
            complain(at.path, "a whole number of " + std::to_string(least) +
                                  " or more was expected, found " + excerpt(at.value->text()));
        }
        return number;
    }

    double real(At const& at) {
        double number = 0;
        if (is(at, Kind::kNumber) && !at.value->as_double(number)) {
            complain(at.path, "a finite number was expected, found " + excerpt(at.value->text()));
        }
        return number;
    }

    template <typename Read>
    auto list(At const& at, Read const& read) -> std::vector<decltype(read(at))> {
        std::vector<decltype(read(at))> values;
        if (is(at, Kind::kArray)) {
            auto const& items = at.value->items();
            for (std::size_t i = 0; i < items.size() && complaint_.empty(); ++i) {
                values.push_back(read(At{&items[i], at.path + "[" + std::to_string(i) + "]"}));
            }
        }
        return values;
    }

    std::vector<std::string> texts(At const& at) {
        return list(at, [this](At const& item) { return text(item); });
    }

  private:
    std::string complaint_;
};

using At = Reader::At;

FileIdentity read_identity(Reader& reader, At const& at) {
    return {reader.text(reader.member(at, "name")), reader.text(reader.member(at, "sha256")),
            reader.integer(reader.member(at, "bytes"), 0)};
}

RecordedTensor read_tensor(Reader& reader, At const& at) {
    auto const size = [&reader](At const& item) {
        bool const symbolic = item.value->kind() == Json::Kind::kText;
        return symbolic ? std::int64_t{-1} : reader.integer(item, 0);
    };
    return {reader.text(reader.member(at, "name")), reader.text(reader.member(at, "dtype")),
            reader.list(reader.member(at, "shape"), size)};
}

RecordedProfile read_profile(Reader& reader, At const& at) {
    RecordedProfile profile;
    if (!reader.is(at, Json::Kind::kObject)) {
        return profile;
    }
    auto const size = [&reader](At const& item) { return reader.integer(item, 1); };
    for (auto const& [input, value] : at.value->members()) {
        At const range{&value, at.path + "." + input};
        profile.push_back({input, reader.list(reader.member(range, "min"), size),
                           reader.list(reader.member(range, "opt"), size),
                           reader.list(reader.member(range, "max"), size)});
        auto const& last = profile.back();
        if (last.min.size() != last.max.size() || last.min.size() != last.opt.size()) {
            reader.complain(range.path, "min, opt and max differ in length");
        }
    }
    return profile;
}

ImagePreparation read_preparation(Reader& reader, At const& at) {
    auto const real = [&reader](At const& item) { return reader.real(item); };
    ImagePreparation image;
    image.height = reader.integer(reader.member(at, "height"), 1);
    image.width = reader.integer(reader.member(at, "width"), 1);
    image.channels = reader.integer(reader.member(at, "channels"), 1);
    image.mean = reader.list(reader.member(at, "mean"), real);
    image.std = reader.list(reader.member(at, "std"), real);
    image.crop_ratio = reader.real(reader.member(at, "crop_ratio"));
    image.interpolation = reader.text(reader.member(at, "interpolation"));
    if (std::max({image.height, image.width, image.channels}) > kLargestSide) {
        reader.complain(at.path,
                        "height, width and channels are at most " + std::to_string(kLargestSide));
        return image;
    }
    auto const channels = static_cast<std::size_t>(image.channels);
    if (image.mean.size() != channels || image.std.size() != channels) {
        reader.complain(at.path, "mean and std must have one value for each channel");
    }
    if (!can_normalise(image) || !(image.crop_ratio > 0 && image.crop_ratio <= 1)) {
        reader.complain(at.path,
                        "mean and std must fit float32, std be above 0, crop_ratio above 0 and at "
                        "most 1");
    }
    return image;
}

ExportInfo read_export(Reader& reader, At const& at) {
    ExportInfo info;
    info.model = reader.text(reader.member(at, "model"));
    info.preprocess = reader.text(reader.member(at, "preprocess"));
    info.head = reader.text(reader.member(at, "head"));
    info.precision = reader.text(reader.member(at, "precision"));
    info.image = read_preparation(reader, reader.member(at, "image"));
    info.labels = reader.texts(reader.member(at, "labels"));
    return info;
}

RecordedPlugin read_plugin(Reader& reader, At const& at) {
    return {reader.text(reader.member(at, "name")), reader.text(reader.member(at, "sha256")),
            reader.integer(reader.member(at, "contract_version"), 0),
            reader.boolean(reader.member(at, "embedded"))};
}

// What records have since engines may hold plugins.
void read_later_fields(Reader& reader, At const& root, EngineRecord& record) {
    At const plugin = reader.optional(root, "plugin");
    if (plugin.value != nullptr) {
        record.plugin = read_plugin(reader, plugin);
    }
    At const stripped = reader.optional(root, "stripped");
    record.stripped = stripped.value != nullptr && reader.boolean(stripped);
    At const flags = reader.optional(root, "flags");
    if (flags.value != nullptr) {
        auto const names = reader.texts(flags);
        record.version_compatible =
            std::find(names.begin(), names.end(), "VERSION_COMPATIBLE") != names.end();
    }
}

EngineRecord read_fields(Reader& reader, At const& root) {
    EngineRecord record;
    std::int64_t const format = reader.integer(reader.member(root, "format"), 0);
    if (format != kRecordFormat) {
        reader.complain("format",
                        std::to_string(format) + ", expected " + std::to_string(kRecordFormat));
        return record;
    }
    auto const tensor = [&reader](At const& item) { return read_tensor(reader, item); };
    record.plan = read_identity(reader, reader.member(root, "plan"));
    record.runtime = reader.text(reader.member(root, "runtime"));
    record.runtime_version = reader.text(reader.member(root, "runtime_version"));
    record.inputs = reader.list(reader.member(root, "inputs"), tensor);
    record.outputs = reader.list(reader.member(root, "outputs"), tensor);
    record.profiles = reader.list(reader.member(root, "profiles"),
                                  [&reader](At const& item) { return read_profile(reader, item); });
    record.compute_capabilities = reader.texts(reader.member(root, "compute_capabilities"));
    record.later_gpus = reader.boolean(reader.member(root, "later_gpus"));
    read_later_fields(reader, root, record);
    At const exported = reader.member(root, "export");
    if (exported.value != nullptr && exported.value->kind() != Json::Kind::kNull) {
        record.exported = read_export(reader, exported);
    }
    return record;
}

Error unreadable(std::string const& path, std::string const& why) {
    return {"VIM-413", path + " is not a readable engine record", why,
            "build the engine again: vim-deploy build-engine MODEL.onnx --force"};
}

}  // namespace

bool can_normalise(ImagePreparation const& image) noexcept {
    constexpr double kLargest = std::numeric_limits<float>::max();
    constexpr double kLeast = std::numeric_limits<float>::min();
    auto const fits = [](double value) { return std::fabs(value) <= kLargest; };
    auto const divides = [](double value) { return value >= kLeast && value <= kLargest; };
    return std::all_of(image.mean.begin(), image.mean.end(), fits) &&
           std::all_of(image.std.begin(), image.std.end(), divides);
}

Result<ExportInfo> parse_export(std::string_view text) {
    auto const document = Json::parse(text);
    if (!document) {
        return document.error();
    }
    Reader reader;
    ExportInfo info = read_export(reader, At{&document.value(), ""});
    if (!reader.complaint().empty()) {
        return Error{"", reader.complaint(), "", ""};
    }
    return info;
}

Result<EngineRecord> parse_record(std::string_view text, std::string const& path) {
    return guarded("reading a record", [&]() -> Result<EngineRecord> {
        auto const document = Json::parse(text);
        if (!document) {
            return unreadable(path, document.error().message);
        }
        Reader reader;
        EngineRecord record = read_fields(reader, At{&document.value(), ""});
        if (!reader.complaint().empty()) {
            return unreadable(path, reader.complaint());
        }
        return record;
    });
}

Result<EngineRecord> read_record(std::string const& plan_path) {
    return guarded("reading a record", [&]() -> Result<EngineRecord> {
        std::string const path = plan_path + ".json";
        auto const bytes = read_file(path, "engine record", "VIM-413", JsonLimits().bytes);
        if (!bytes) {
            return bytes.error();
        }
        return parse_record({bytes->data(), bytes->size()}, path);
    });
}

}  // namespace vim_deploy
