// How files that name models get at them: this room does not know where configs are.
#pragma once
#include <functional>
#include <string>

#include "spec/model_config.h"

namespace moge::sim {

/// From a model's name to its config; throws where there is none.
using ModelLoader = std::function<spec::ModelConfig(const std::string& name)>;

}  // namespace moge::sim
