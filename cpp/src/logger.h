//! \file logger.h
//! TensorRT's one logger of this process, and what it says during a call.
#pragma once

#include <NvInferRuntime.h>

#include <string>

namespace vim_deploy {

//! Lives as long as the process: TensorRT may keep the first logger it is given.
nvinfer1::ILogger& tensorrt_logger();

//! Keeps the errors that this thread's calls log while it lives, for the reason of our own error.
class LogCapture {
  public:
    LogCapture();
    LogCapture(LogCapture const&) = delete;
    LogCapture& operator=(LogCapture const&) = delete;
    ~LogCapture();

    //! The last messages, one a line; `otherwise` when there were none.
    std::string text(char const* otherwise) const;
    void add(char const* message);

  private:
    std::string text_;
    LogCapture* outer_;
};

}  // namespace vim_deploy
