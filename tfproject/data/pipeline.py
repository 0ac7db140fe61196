"""From a split in memory to batches: tf.data pipelines that depend on a seed and the epoch's number alone."""

import numpy as np
import tensorflow as tf

from tfproject.data import augmentation
from tfproject.errors import UserError


def batches(split, batch_size):
    """See `tfproject.data.Split.batches`."""
    images = tf.data.Dataset.from_tensor_slices((split.images, split.labels))
    return untuned(images.batch(batch_size).map(lambda x, y: (tf.cast(x, tf.float32), y)).prefetch(2))


def untuned(dataset):
    """The dataset without TensorFlow's tuning of it as it runs: nothing here is left to tune, and ending it takes long.

    The tuner looks again after 10, 20, 40 ... ms, and whoever lets go of the dataset's iterator waits until it has: a
    training or validation of 1.3 s takes 2.5 s.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)


def training_batches(split, class_count, batch_size, augment=(), seed=0, first_epoch=0, epochs=1):
    """Batches for training, one epoch after the other.

    The order of an epoch and the augmentation of a batch are drawn from the seed and from their own numbers, so a
    pipeline that starts at `first_epoch` gives exactly what one that started at 0 gives from there on.

    Args:
        split: the training split.
        class_count: number of classes.
        batch_size: images a batch; what is left at the end of an epoch is dropped (it is another rest every epoch).
        augment: names of augmentations (`tfproject.data.augmentation.BY_NAME`), in order.
        seed: an integer.
        first_epoch, epochs: the first epoch's number and the number after the last one's.

    Returns:
        A tf.data.Dataset of (float32 images (batch_size, h, w, 3) in 0..255, float32 labels (batch_size, class_count));
        (len(split) // batch_size) batches an epoch.

    Raises:
        UserError: if the split is smaller than a batch, or an augmentation is unknown or does not suit the images.
    """
    augmentation.check(augment, split.image_shape)
    images, labels = tf.constant(split.images), tf.one_hot(split.labels, class_count)
    seed_augment = np.random.SeedSequence(seed).generate_state(2).astype(np.int32)[1]

    def batch(number, indices, epoch):
        # Images are gathered from memory by a whole batch, augmented as uint8 where that is possible (a quarter of the
        # traffic), and cast last.
        seed = tf.stack([seed_augment, tf.cast(number, tf.int32)])
        x = tf.ensure_shape(tf.gather(images, indices), (batch_size, *split.image_shape))
        x, y = augmentation.augment(x, tf.gather(labels, indices), augment, seed, indices, epoch)
        return tf.cast(x, tf.float32), y

    return in_batches(len(split), batch_size, batch, seed, first_epoch, epochs)


def check_batch_size(batch_size, count):
    """Raise a UserError if a batch takes more than the `count` training images."""
    if count < batch_size:
        raise UserError(f"The batch size {batch_size} is larger than the {count} training images; choose less.")


def in_batches(count, batch_size, make_batch, seed=0, first_epoch=0, epochs=1):
    """Batches of the things numbered 0 to count - 1, in an order drawn from the seed and the epoch's number.

    Args:
        count: how many there are.
        make_batch: function from a batch's number, the things' numbers (int32 (batch_size,)) and the epoch's number,
            all tensors, to the batch.
        batch_size, seed, first_epoch, epochs: as for `training_batches`.

    Returns:
        A tf.data.Dataset of what `make_batch` gives.

    Raises:
        UserError: if there are fewer than a batch takes.
    """
    check_batch_size(batch_size, count)
    steps = count // batch_size
    seed_order = np.random.SeedSequence(seed).generate_state(2).astype(np.int32)[0]

    # Numbers are shuffled rather than images: it is cheap, and a perfect shuffle.
    def epoch_numbers(epoch):
        order = tf.random.experimental.stateless_shuffle(
            tf.range(count), tf.stack([seed_order, tf.cast(epoch, tf.int32)])
        )
        first = epoch * steps
        numbers = tf.data.Dataset.from_tensor_slices(order).batch(batch_size, drop_remainder=True)
        return tf.data.Dataset.zip(tf.data.Dataset.range(first, first + steps), numbers)

    dataset = tf.data.Dataset.range(first_epoch, epochs).flat_map(epoch_numbers)
    dataset = dataset.map(
        lambda number, things: make_batch(number, things, number // steps), num_parallel_calls=2, deterministic=True
    ).prefetch(4)  # so that the next batch is made while the network works
    options = tf.data.Options()
    options.threading.private_threadpool_size = 2  # its own threads: it must not wait for the network's operations
    # Every replica gets its share of each batch; there are no files to share out.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    dataset = dataset.apply(tf.data.experimental.assert_cardinality((epochs - first_epoch) * steps))
    return untuned(dataset.with_options(options))
