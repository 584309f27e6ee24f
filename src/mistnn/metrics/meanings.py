"""What each metric means, in one line: the explanations that ``mist evaluate`` prints."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

MEANINGS: Mapping[str, str] = MappingProxyType(
    {
        "iou50": "share of objects overlapped by a box of their own with IoU > 0.5",
        "both": "share of objects overlapped like that by a box of the right class",
        "classified": "share of objects counted in the right class: per class, the smaller of true and predicted count",
        "classified_paper": "the same by the rule of the papers' released code, for comparison only",
        "ap50": "average precision at IoU 0.5",
        "ap": "average precision, mean over IoU 0.5 to 0.95; for generative models 0.1 to 0.9",
        "ap_ink": "scattered digits: ap against the box around a digit's ink instead of its frame of 14 pixels",
        "ap50_ink": "the same at IoU 0.5",
        "ap00": "house numbers: average precision of the classes alone, at any IoU",
        **{f"ap{percent}": f"average precision at IoU 0.{percent // 10}" for percent in (60, 70, 80, 90)},
        "fixed_iou50": "iou50 of the mean boxes of the training images, used in every image",
        "fixed_ap00": "ap00 of these boxes with the most frequent class",
        **{f"fixed_ap{percent}": f"the same at IoU 0.{percent // 10}" for percent in (50, 60, 70, 80, 90)},
        "greedy_optimal_gap": "how much iou50 would gain from an optimal assignment of boxes to objects",
        "iou50_fixed_size": "iou50 of the same positions with one size for all, the median of the true sizes",
        "size_correlation": "correlation of predicted and true sizes, for detections near an object",
        "size_error": "mean absolute error of these sizes, in pixels",
        "size_error_constant": "the same for the best constant size",
        "precision": "share of detections whose centre lies in an object of their class; for Gabor noise, within half "
        "a kernel's width of an impulse",
        "recall": "share of objects, or impulses, with such a detection of their own",
        "precision_chance": "precision of as many random positions",
        "recall_close": "recall within half the least distance between two impulses",
        "recall_close_chance": "the same for random positions",
        "rmse": "root mean square error of a pixel of the reconstruction; black is 0, white 1",
        "rmse_black": "the same for an all-black image, as a baseline",
        "rmse_mean": "the same for the mean image, as a baseline",
        "r2": "share of the images' variance that is explained: 1 - (rmse / rmse_mean) squared",
        "count_error": "mean absolute error of the number of objects, where K is not given",
        "count_accuracy": "share of images with the right number of objects",
        "count_bias": "mean of found minus true number of objects: above 0 for too many, below for too few",
        "count_mrmse": "root mean square error of the counts of a class, averaged over the classes (mRMSE)",
        "count_mrelrmse": "the same, each squared error divided by the true count plus 1 (m-relRMSE)",
        "count_error_mean": "count_error of always predicting the mean number of the training images (or of these "
        "images, where a folder has no others), as a baseline",
        "presence": "share of images and classes for which presence or absence is predicted correctly",
        "presence_guess": "the same for always predicting what is true of most training images (or of these images, "
        "where a folder has no others), as a baseline",
        "f1": "F1 score of detections; one is right if its centre lies in an object of its class",
        "precision_iou50": "precision of boxes that overlap an object of their class with IoU > 0.5",
        "recall_iou50": "recall of such boxes",
        "f1_iou50": "F1 score of such boxes",
        "error": "share of images that are misclassified; for house numbers, with any wrong digit",
        **{
            f"outside_{number}": f"share of what spatial transformer {number} samples outside its input"
            for number in (1, 2, 3, 4)
        },
        "found": "detections in all images, without those of the background class",
        "threshold": "the score from which boxes are counted",
        "strength_free_k": "strength of the heat map's softmax where K is unknown",
        "window_free_k": "suppression window in pixels where K is unknown",
        "images": "images measured",
        "objects": "objects in these images",
    }
)
COUNTS = ("images", "objects", "found")
"""Metrics that are whole numbers."""
