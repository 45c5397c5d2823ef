from inception_v1 import GoogLeNet
from interpretability.layer_names import lucid_names, own_name

LUCID = {
    "conv2d0": "conv1_7x7_s2",
    "conv2d2_pre_relu": "conv2_3x3_pre_relu",
    "localresponsenorm1": "conv2_norm2",
    "mixed4d": "inception_4d",
    "mixed5b_pre_relu": "inception_5b_pre_relu",
    "mixed4d_3x3_bottleneck": "inception_4d_3x3_reduce",
    "mixed4d_pool_reduce_pre_relu": "inception_4d_pool_proj_pre_relu",
    "maxpool10": "pool4",
    "head0_bottleneck": "aux1_conv",
    "nn1": "aux2_fc",
    "softmax2": "main",
    "softmax2_pre_activation": "main_logits",
    "inception_4d_5x5": "inception_4d_5x5",
    "input": "input",
}


def test_lucids_names_are_ours_of_the_same_layers():
    assert {name: own_name(name) for name in LUCID} == LUCID
    model = GoogLeNet("inception5h", input_shape=(64, 64, 3), width_multiplier=0.1)
    assert {own_name(name) for name in lucid_names()} <= set(model.feature_names())
