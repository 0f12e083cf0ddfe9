"""Architectures and checkpoints that the demo, the benches and the examples use.

Every architecture is a plain ``nn.Module`` with a factory that needs no argument, and a
``load_*`` function that fills it from its published checkpoint; those of ``dit``, ``unet`` and
``judge`` are trained here (:mod:`signbook.diffusion.trained`). A module registers its layers in
execution order, so that containers store them in the order in which hardware reads them. Image
models take RGB or grey values in [0, 1] and bring their own ``normalize`` module. Sizes count
the parameters. Those of :mod:`signbook.zoo.vim` have no published weights: ``trained_digits`` and
the like train them once and keep them (:mod:`signbook.zoo.trained`).

=================================  ============================================  ==========
factory                            model                                         parameters
=================================  ============================================  ==========
signbook.zoo.resnet:resnet20       ResNet-20 for CIFAR-10                           269,722
signbook.zoo.resnet:resnet44       ResNet-44 for CIFAR-10                           658,586
signbook.zoo.tiniest:tiniest       depthwise, gated CNN for CIFAR-10                 97,530
signbook.zoo.resnet8:resnet8       MLPerf Tiny's ResNet-8 for CIFAR-10               78,186
signbook.zoo.efficientnet:lite0    EfficientNet-Lite0 for ImageNet                4,652,008
signbook.zoo.llama:stories260k     Llama that tells children's stories              260,032
signbook.zoo.ddpm:ddpm             noise predictor of a diffusion model (MNIST)     291,217
signbook.zoo.dit:digits            diffusion transformer for 8x8 digits             241,988
signbook.zoo.dit:mnist             diffusion transformer for MNIST                  710,800
signbook.zoo.unet:mnist            convolutional noise predictor for MNIST         769,713
signbook.zoo.judge:digits          classifier by which digits are judged             40,394
signbook.zoo.judge:mnist           the same for MNIST                               224,714
signbook.zoo.minilm:minilm         sentence encoder all-MiniLM-L6-v2             22,565,376
signbook.zoo.smollm2:smollm2       language model SmolLM2-135M-Instruct          134,515,008
signbook.zoo.digits:DigitsViT      vision transformer of the demo                   469,258
signbook.zoo.vim:digits            selective state spaces for 8x8 digits             23,370
signbook.zoo.vim:mnist             the same for MNIST                                89,146
signbook.zoo.vim:cifar10           the same for CIFAR-10                            146,442
signbook.zoo.topics:topics_llama   Llama of the demo                                492,384
=================================  ============================================  ==========
"""
